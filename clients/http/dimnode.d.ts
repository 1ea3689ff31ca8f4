// Made by types.mjs out of openapi.json, sha256 622c1f968f3149f22a1d7ceed91023e2bb4bd617b3820543cb60fd494ea7c81c
export interface paths {
    "/dim/v1/jobs/validate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Check a job without running it
         * @description Where it would run, what it costs and what may still be wrong. Nothing is run.
         */
        post: operations["validate_dim_v1_jobs_validate_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/jobs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List jobs
         * @description This key's jobs, newest first; with an admin's key all of this node's.
         */
        get: operations["jobs_dim_v1_jobs_get"];
        put?: never;
        /**
         * Submit a job
         * @description Hand a job in: 202 while it is open, 200 when it ended within `wait` seconds.
         *
         *     The same Idempotency-Key with the same body is the same job, for ever.
         */
        post: operations["submit_dim_v1_jobs_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/jobs/{job}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Show a job
         * @description How it stands; with `wait`, how it stands when it has ended or the time is over.
         */
        get: operations["show_dim_v1_jobs__job__get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/jobs/{job}/cancel": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Cancel a job
         * @description Ask for its end. Harmless when repeated, and when it has ended.
         */
        post: operations["cancel_dim_v1_jobs__job__cancel_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/jobs/{job}/events": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Events of a job
         * @description Its events: as JSON what is on record, or live as server-sent events with `Accept: text/event-stream`.
         *
         *     A stream that broke goes on after `Last-Event-ID` (browsers send it by themselves).
         */
        get: operations["events_dim_v1_jobs__job__events_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/jobs/{job}/receipt": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Receipt of a job
         * @description The signed record tree in one file: `dim verify` it anywhere.
         */
        get: operations["receipt_dim_v1_jobs__job__receipt_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/receipts/{verdict}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Receipt of a verdict
         * @description The receipt that an `X-Dimnode-Receipt` header names.
         */
        get: operations["receipt_of_verdict_dim_v1_receipts__verdict__get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/blobs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Upload bytes
         * @description Hand bytes in, for `blobs` of a job or for a model; kept for a day. The answer names them.
         */
        post: operations["upload_dim_v1_blobs_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/blobs/{blob}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Download an upload
         * @description What this key handed in, whole or one `Range` of it.
         */
        get: operations["download_dim_v1_blobs__blob__get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/jobs/{job}/blobs/{blob}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Download an input or output of a job
         * @description An input or output of a job, as tensors/1.
         */
        get: operations["job_blob_dim_v1_jobs__job__blobs__blob__get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/models": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List models
         * @description Every model that can be run now, here or on a peer, and that this key may use; or all that one peer publishes.
         */
        get: operations["models_dim_v1_models_get"];
        put?: never;
        /**
         * Add a model
         * @description Offer uploads as a model: `POST /dim/v1/blobs` first. They become its files without a copy.
         *
         *     Inputs and outputs of the card are compared with the model (`E-models-07`), and read from it where it says none.
         */
        post: operations["add_model_dim_v1_models_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/models/{model}/pull": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Fetch a model
         * @description Have a model's files here; answered when they are. A request that ends earlier stops it, and the next one goes on
         *     where it was.
         */
        post: operations["pull_dim_v1_models__model__pull_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/models/{model}/verify": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Hash a model's files again
         * @description A file that does not hold is removed, and the model is no longer offered by this node.
         */
        post: operations["verify_dim_v1_models__model__verify_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/models/{model}/grant": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Let a peer use a model
         * @description Sign a grant for a restricted or pay-per-use model of this node's own.
         */
        post: operations["grant_dim_v1_models__model__grant_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/models/{model}/revoke": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Take a grant back
         * @description End all grants of a peer for a model of this node's own; whoever hears of it obeys.
         */
        post: operations["revoke_dim_v1_models__model__revoke_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/models/{model}/withdraw": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Take a model back
         * @description No peer that hears of it runs or hands out this model of this node's own any more.
         */
        post: operations["withdraw_dim_v1_models__model__withdraw_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/models/{model}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Show a model
         * @description One model by id, name or name:version, also one that was withdrawn or that nobody offers now.
         */
        get: operations["model_dim_v1_models__model__get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/data": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List data cabinets
         * @description Cabinets of this node and of its peers: names and columns, never rows or paths.
         */
        get: operations["cabinets_dim_v1_data_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/peers": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List peers
         * @description Peers that were heard lately.
         */
        get: operations["peers_dim_v1_peers_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/standing": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Standing of peers
         * @description What this node thinks of its peers, from its own experience alone.
         */
        get: operations["standing_dim_v1_standing_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/standing/{peer}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Why a peer stands as it does
         * @description The events behind a peer's standing, each with the record that shows it.
         */
        get: operations["why_dim_v1_standing__peer__get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/dim/v1/status": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Status of the node
         * @description How the node is; an admin's key.
         */
        get: operations["status_dim_v1_status_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/health": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Is the node alive
         * @description The loop that answers this is the one that does everything else.
         */
        get: operations["health_health_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/ready": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Is the node ready
         * @description 200 when jobs can run here or on a peer; 503 with what is missing.
         */
        get: operations["ready_ready_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/metrics": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Metrics for Prometheus
         * @description For Prometheus: docs/http.md lists every name.
         */
        get: operations["metrics_metrics_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List models that take text
         * @description Models that take text and that this key may use.
         */
        get: operations["models_v1_models_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{model}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Show a model that takes text
         * @description One of them.
         */
        get: operations["model_v1_models__model__get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/embeddings": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Embed texts
         * @description Texts, or tokens, to vectors, by a model of the swarm.
         */
        post: operations["embeddings_v1_embeddings_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/inference/submit": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Submit a job (classic)
         * @description Hand a job in.
         */
        post: operations["submit_api_inference_submit_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/inference/status/{job_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Status of a job (classic)
         * @description How it stands.
         */
        get: operations["status_api_inference_status__job_id__get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/inference/result/{job_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Result of a job (classic)
         * @description How it ended; 409 while it is open.
         */
        get: operations["result_api_inference_result__job_id__get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/inference/cancel/{job_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Cancel a job (classic)
         * @description Ask for its end. Harmless when repeated.
         */
        post: operations["cancel_api_inference_cancel__job_id__post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /**
         * AddedOut
         * @description A model that is offered now.
         */
        AddedOut: {
            /** Model */
            model: string;
            /** Name */
            name: string;
            /** Access */
            access: string;
        };
        /**
         * BlobOut
         * @description Bytes that are here.
         */
        BlobOut: {
            /** Blob */
            blob: string;
            /** Bytes */
            bytes: number;
        };
        /**
         * CabinetOut
         * @description A data cabinet.
         */
        CabinetOut: {
            /** Name */
            name: string;
            /**
             * Peer
             * @description a peer's id, or self
             */
            peer: string;
            /** Columns */
            columns: string[];
            /** Operations */
            operations: string[];
        };
        /**
         * CabinetsOut
         * @description Data cabinets.
         */
        CabinetsOut: {
            /** Cabinets */
            cabinets: components["schemas"]["CabinetOut"][];
        };
        /**
         * CancelOut
         * @description A cancellation was asked for; the job ends as cancelled unless it ended before.
         */
        CancelOut: {
            /** Job */
            job: string;
            /** Cancelling */
            cancelling: boolean;
        };
        /**
         * CheckedFile
         * @description A file that was hashed again.
         */
        CheckedFile: {
            /** Path */
            path: string;
            /**
             * Role
             * @default
             */
            role?: string;
            /**
             * Root
             * @description the CID of its bytes
             */
            root: string;
            /** Bytes */
            bytes: number;
            /**
             * State
             * @description holds, damaged or missing
             */
            state: string;
        };
        /**
         * CheckedOut
         * @description A model whose files were hashed again.
         */
        CheckedOut: {
            /** Model */
            model: string;
            /** Name */
            name: string;
            /** Holds */
            holds: boolean;
            /** Files */
            files: components["schemas"]["CheckedFile"][];
        };
        /**
         * ConditionIn
         * @description Only rows where `column` `op` `value`.
         */
        ConditionIn: {
            /** Column */
            column: string;
            /**
             * Op
             * @enum {string}
             */
            op: "eq" | "ne" | "lt" | "le" | "gt" | "ge";
            /** Value */
            value: number;
        };
        /**
         * ConfigIn
         * @description What is to be run, and where.
         */
        ConfigIn: {
            /**
             * Modelid
             * @default
             */
            modelId?: string;
            /** Modelids */
            modelIds?: string[];
            /**
             * Nodes
             * @description pins executors, in order
             */
            nodes?: string[];
            /** Steps */
            steps?: components["schemas"]["StepIn"][];
            /**
             * Operation
             * @default
             * @enum {string}
             */
            operation?: "" | "infer" | "evaluate" | "statistics";
            /**
             * Dataset
             * @description the cabinet at each node
             * @default
             */
            dataset?: string;
            aggregation?: components["schemas"]["MethodIn"];
            consensus?: components["schemas"]["MethodIn"];
            /**
             * Inputdata
             * @description rows, or {name: rows}
             */
            inputData?: unknown;
            /**
             * Minnodes
             * @default 0
             */
            minNodes?: number;
            /**
             * Timeoutseconds
             * @default 120
             */
            timeoutSeconds?: number;
        };
        /**
         * EmbeddingOut
         * @description One text's vector: numbers, or base64 of float32 in little endian.
         */
        EmbeddingOut: {
            /**
             * Object
             * @constant
             */
            object: "embedding";
            /** Index */
            index: number;
            /** Embedding */
            embedding: number[] | string;
        };
        /**
         * EmbeddingsIn
         * @description `POST /v1/embeddings`.
         */
        EmbeddingsIn: {
            /** Model */
            model: string;
            /** Input */
            input: string | string[] | number[] | number[][];
            /**
             * Encoding Format
             * @default float
             * @enum {string}
             */
            encoding_format?: "float" | "base64";
            /** Dimensions */
            dimensions?: number | null;
        };
        /**
         * EmbeddingsOut
         * @description Vectors in the order of the texts.
         */
        EmbeddingsOut: {
            /**
             * Object
             * @constant
             */
            object: "list";
            /** Data */
            data: components["schemas"]["EmbeddingOut"][];
            /** Model */
            model: string;
            usage: components["schemas"]["UsageOut"];
        };
        /**
         * ErrorOut
         * @description Every answer that is no success.
         */
        ErrorOut: {
            error: components["schemas"]["Trouble"];
        };
        /**
         * EventOut
         * @description One event in a job's life. `id` is null for what passes without a record.
         */
        EventOut: {
            /** Id */
            id: number | null;
            /** At Ms */
            at_ms: number;
            /** What */
            what: string;
            /** Task */
            task: number;
            /** Epoch */
            epoch: number;
            /** Peer */
            peer: string;
            /** Text */
            text: string;
        };
        /**
         * EventsOut
         * @description Events that are on record, oldest first.
         */
        EventsOut: {
            /** Events */
            events: components["schemas"]["EventOut"][];
            /**
             * Last
             * @description give it as `after` for what comes then
             */
            last: number;
        };
        /**
         * GrantIn
         * @description Who may do what.
         */
        GrantIn: {
            /**
             * Peer
             * @description a peer's id or name
             */
            peer: string;
            /**
             * Operations
             * @description empty: all of them
             * @default []
             */
            operations?: ("fetch" | "infer" | "evaluate")[];
            /**
             * Expires Ms
             * @description milliseconds since 1970; null: for ever
             */
            expires_ms?: number | null;
            /**
             * Terms
             * @default
             */
            terms?: string;
        };
        /**
         * GrantedOut
         * @description A grant that was signed.
         */
        GrantedOut: {
            /**
             * Grant
             * @description the id of the record
             */
            grant: string;
            /** Name */
            name: string;
            /** Peer */
            peer: string;
            /** Operations */
            operations: string[];
            /** Expires Ms */
            expires_ms: number | null;
            /** Terms */
            terms: string;
        };
        /**
         * HealthOut
         * @description It answers.
         */
        HealthOut: {
            /** Ok */
            ok: boolean;
        };
        /**
         * JobIn
         * @description A job, with the keys of a job file (docs/job-files.md).
         */
        JobIn: {
            /**
             * Pattern
             * @default chained
             * @enum {string}
             */
            pattern?: "chained" | "comparative" | "collaborative";
            /** Tasks */
            tasks: components["schemas"]["TaskIn"][];
            /**
             * Input
             * @description named tables of numbers: {name: [[…], …]}
             */
            input?: {
                [key: string]: unknown;
            };
            /**
             * Blobs
             * @description or inputs that were uploaded, by id
             */
            blobs?: string[];
            rule?: components["schemas"]["RuleIn"] | null;
            /**
             * Tier
             * @default signed
             */
            tier?: string;
            quorum?: components["schemas"]["QuorumIn"] | null;
            /** Comparator */
            comparator?: {
                [key: string]: unknown;
            } | null;
            /**
             * Min Sites
             * @default 0
             */
            min_sites?: number;
            /**
             * Deadline Seconds
             * @default 120
             */
            deadline_seconds?: number;
            /**
             * Priority
             * @default normal
             * @enum {string}
             */
            priority?: "low" | "normal" | "high";
            /**
             * Visibility
             * @default swarm
             * @enum {string}
             */
            visibility?: "swarm" | "participants";
            /**
             * Label
             * @default
             */
            label?: string;
        };
        /**
         * JobOut
         * @description A job, open or ended.
         */
        JobOut: {
            /**
             * Job
             * @description its id: the CID of its signed spec
             */
            job: string;
            /**
             * Status
             * @enum {string}
             */
            status: "open" | "ok" | "failed" | "refused" | "cancelled" | "expired" | "split";
            /**
             * Verdict
             * @description the id of the signed verdict
             * @default
             */
            verdict?: string;
            /**
             * Code
             * @description why it did not end well
             * @default
             */
            code?: string;
            /**
             * Reason
             * @default
             */
            reason?: string;
            /** Outputs */
            outputs?: components["schemas"]["OutputOut"][];
            /**
             * Receipt
             * @description where the receipt is
             * @default
             */
            receipt?: string;
            /**
             * Events
             * @description where the events are
             * @default
             */
            events?: string;
        };
        /**
         * JobResultOut
         * @description How it ended.
         */
        JobResultOut: {
            /** Jobid */
            jobId: string;
            /**
             * Status
             * @enum {string}
             */
            status: "running" | "completed" | "failed" | "cancelled";
            /**
             * Pattern
             * @default
             */
            pattern?: string;
            /**
             * Code
             * @default
             */
            code?: string;
            /**
             * Reason
             * @default
             */
            reason?: string;
            /** Outputs */
            outputs?: components["schemas"]["OutputOut"][];
            /**
             * Receipt
             * @default
             */
            receipt?: string;
        };
        /**
         * JobRow
         * @description A line of a list of jobs.
         */
        JobRow: {
            /** Job */
            job: string;
            /** Label */
            label: string;
            /** Pattern */
            pattern: string;
            /** Tier */
            tier: string;
            /** At Ms */
            at_ms: number;
            /** Status */
            status: string;
        };
        /**
         * JobStatusOut
         * @description How a job stands.
         */
        JobStatusOut: {
            /** Jobid */
            jobId: string;
            /**
             * Status
             * @enum {string}
             */
            status: "running" | "completed" | "failed" | "cancelled";
            /**
             * Pattern
             * @default
             */
            pattern?: string;
            /**
             * Code
             * @default
             */
            code?: string;
            /**
             * Reason
             * @default
             */
            reason?: string;
        };
        /**
         * JobsOut
         * @description Jobs, newest first.
         */
        JobsOut: {
            /** Jobs */
            jobs: components["schemas"]["JobRow"][];
            /**
             * Before Ms
             * @description give it as `before_ms` for the next page; null on the last
             */
            before_ms: number | null;
        };
        /**
         * MayOut
         * @description Whether this node may do something with a model, and why.
         */
        MayOut: {
            /** Allowed */
            allowed: boolean;
            /** Code */
            code: string;
            /** Why */
            why: string;
        };
        /**
         * MethodIn
         * @description How answers become a result.
         */
        MethodIn: {
            /**
             * Method
             * @default
             */
            method?: string;
            /** Weights */
            weights?: number[];
        };
        /**
         * ModelFileOut
         * @description A file of a model.
         */
        ModelFileOut: {
            /** Path */
            path: string;
            /** Role */
            role: string;
            /**
             * Root
             * @description the CID of its bytes
             */
            root: string;
            /** Bytes */
            bytes: number;
        };
        /**
         * ModelGrant
         * @description Who may use a model beside its publisher.
         */
        ModelGrant: {
            /** Peer */
            peer: string;
            /** Operations */
            operations: string[];
            /** Expires Ms */
            expires_ms: number | null;
            /** Terms */
            terms: string;
            /** Revoked */
            revoked: boolean;
        };
        /**
         * ModelIn
         * @description A model card for one upload, `blob`, or for several, `files` (docs/operator.md, Models).
         */
        ModelIn: {
            /**
             * Blob
             * @description what POST /dim/v1/blobs named it
             * @default
             */
            blob?: string;
            /**
             * Files
             * @default []
             */
            files?: components["schemas"]["UploadedFile"][];
            /** Name */
            name: string;
            /**
             * Version
             * @default 1.0.0
             */
            version?: string;
            /**
             * Licence
             * @default
             */
            licence?: string;
            /**
             * Summary
             * @default
             */
            summary?: string;
            /**
             * Origin
             * @default imported
             * @enum {string}
             */
            origin?: "trained" | "rule" | "imported" | "converted" | "quantised";
            /**
             * Format
             * @description empty: by the file
             * @default
             * @enum {string}
             */
            format?: "" | "onnx" | "torch" | "mlx" | "coreml";
            /**
             * Access
             * @default public
             * @enum {string}
             */
            access?: "public" | "private" | "restricted" | "pay-per-use";
            /** @description with pay-per-use, and only then */
            price?: components["schemas"]["PriceIn"] | null;
            /**
             * Architecture
             * @default
             */
            architecture?: string;
            /**
             * Dtype
             * @default
             */
            dtype?: string;
            /**
             * Quantisation
             * @default
             */
            quantisation?: string;
            /**
             * Labels
             * @default []
             */
            labels?: string[];
            /**
             * Inputs
             * @default []
             */
            inputs?: components["schemas"]["TensorKind"][];
            /**
             * Outputs
             * @default []
             */
            outputs?: components["schemas"]["TensorKind"][];
            /**
             * Pre
             * @description what stands before the model (docs/transforms.md)
             * @default []
             */
            pre?: components["schemas"]["Step"][];
            /**
             * Post
             * @description what stands after it
             * @default []
             */
            post?: components["schemas"]["Step"][];
            /**
             * Memory Bytes
             * @description what it needs, where that is known
             * @default 0
             */
            memory_bytes?: number;
            /**
             * Max Batch
             * @description rows that it takes at once; 0: any number
             * @default 0
             */
            max_batch?: number;
        };
        /**
         * ModelOut
         * @description A model that can be run.
         */
        ModelOut: {
            /**
             * Model
             * @description the id of its signed manifest
             */
            model: string;
            /**
             * Name
             * @description name:version
             */
            name: string;
            /** Publisher */
            publisher: string;
            /** Format */
            format: string;
            /** Origin */
            origin: string;
            /**
             * Access
             * @description public, private, restricted or pay-per-use
             */
            access: string;
            /**
             * Allowed
             * @description whether this node may have it run
             */
            allowed: boolean;
            /**
             * Mine
             * @description whether this node publishes it
             */
            mine: boolean;
            /** Licence */
            licence: string;
            /** Summary */
            summary: string;
            /** Labels */
            labels: string[];
            /**
             * Inputs
             * @description [name, dtype, shape]; -1 for any size
             */
            inputs: components["schemas"]["TensorKind"][];
            /** Outputs */
            outputs: components["schemas"]["TensorKind"][];
            /**
             * Takes
             * @description what `pre` begins with; empty: give the tensors of `inputs`
             */
            takes: components["schemas"]["TakesOut"][];
            /**
             * Texts
             * @description names of an answer that hold text
             */
            texts: string[];
            /** Bytes */
            bytes: number;
            /** Here */
            here: boolean;
            /** Peers */
            peers: string[];
        };
        /**
         * ModelShown
         * @description Everything that a model's manifest says, and who may use it.
         */
        ModelShown: {
            /**
             * Model
             * @description the id of its signed manifest
             */
            model: string;
            /**
             * Name
             * @description name:version
             */
            name: string;
            /** Publisher */
            publisher: string;
            /** Format */
            format: string;
            /** Origin */
            origin: string;
            /**
             * Access
             * @description public, private, restricted or pay-per-use
             */
            access: string;
            /**
             * Allowed
             * @description whether this node may have it run
             */
            allowed: boolean;
            /**
             * Mine
             * @description whether this node publishes it
             */
            mine: boolean;
            /** Licence */
            licence: string;
            /** Summary */
            summary: string;
            /** Labels */
            labels: string[];
            /**
             * Inputs
             * @description [name, dtype, shape]; -1 for any size
             */
            inputs: components["schemas"]["TensorKind"][];
            /** Outputs */
            outputs: components["schemas"]["TensorKind"][];
            /**
             * Takes
             * @description what `pre` begins with; empty: give the tensors of `inputs`
             */
            takes: components["schemas"]["TakesOut"][];
            /**
             * Texts
             * @description names of an answer that hold text
             */
            texts: string[];
            /** Bytes */
            bytes: number;
            /** Here */
            here: boolean;
            /** Peers */
            peers: string[];
            /** Version */
            version: string;
            /** At Ms */
            at_ms: number;
            /** Profile */
            profile: string;
            /** Files */
            files: components["schemas"]["ModelFileOut"][];
            /**
             * May
             * @description by operation: fetch, infer, evaluate
             */
            may: {
                [key: string]: components["schemas"]["MayOut"];
            };
            price: components["schemas"]["PriceOut"] | null;
            /**
             * Previous
             * @description the id of the manifest that it updates, or empty
             */
            previous: string;
            /**
             * Lineage
             * @description [relation, id]
             */
            lineage: [
                string,
                string
            ][];
            /** Architecture */
            architecture: string;
            /** Dtype */
            dtype: string;
            /** Quantisation */
            quantisation: string;
            /** Memory Bytes */
            memory_bytes: number;
            /** Max Batch */
            max_batch: number;
            /** Pre */
            pre: components["schemas"]["Step"][];
            /** Post */
            post: components["schemas"]["Step"][];
            /**
             * Withdrawn
             * @description why its publisher took it back; null while it stands
             */
            withdrawn: string | null;
            /**
             * Replacement
             * @description what to take instead of a withdrawn one: a name, or an id
             * @default
             */
            replacement?: string;
            /**
             * Newer
             * @description name:version of its updates
             */
            newer: string[];
            /**
             * Grants
             * @description for an admin's key; others see none
             */
            grants: components["schemas"]["ModelGrant"][];
        };
        /**
         * ModelsOut
         * @description Models.
         */
        ModelsOut: {
            /** Models */
            models: components["schemas"]["ModelOut"][];
        };
        /**
         * OpenAiModel
         * @description A model that this key may use.
         */
        OpenAiModel: {
            /** Id */
            id: string;
            /**
             * Object
             * @constant
             */
            object: "model";
            /** Created */
            created: number;
            /** Owned By */
            owned_by: string;
        };
        /**
         * OpenAiModels
         * @description Models.
         */
        OpenAiModels: {
            /**
             * Object
             * @constant
             */
            object: "list";
            /** Data */
            data: components["schemas"]["OpenAiModel"][];
        };
        /**
         * OutputOut
         * @description One output of a job.
         */
        OutputOut: {
            /**
             * Blob
             * @description its id, for GET /dim/v1/jobs/{job}/blobs/{blob}
             */
            blob: string;
            /** Bytes */
            bytes: number;
            /** Tensors */
            tensors: components["schemas"]["TensorOut"][];
            /**
             * Predicted
             * @description the tensor `label` in the names of the classes; left out where the model has none
             * @default []
             */
            predicted?: string[];
        };
        /**
         * PeerOut
         * @description A peer.
         */
        PeerOut: {
            /** Peer */
            peer: string;
            /** Name */
            name: string;
            /** Linked */
            linked: boolean;
            /** Path */
            path: string | null;
            /** Rtt Ms */
            rtt_ms: number | null;
            /** Agent */
            agent: string;
            /** Models */
            models: string[];
            /** Slots */
            slots: number;
            /** Free Slots */
            free_slots: number;
            /** Load Percent */
            load_percent: number;
            /** Sandbox */
            sandbox: string;
            /** Heard Seconds Ago */
            heard_seconds_ago: number | null;
        };
        /**
         * PeersOut
         * @description Peers.
         */
        PeersOut: {
            /** Me */
            me: string;
            /** Peers */
            peers: components["schemas"]["PeerOut"][];
        };
        /**
         * PlanOut
         * @description What would happen to a job, its cost and its risk. Nothing was run.
         */
        PlanOut: {
            /** Pattern */
            pattern: string;
            /** Tier */
            tier: string;
            /** Cost Factor */
            cost_factor: number;
            /** Residual Risk */
            residual_risk: string;
            /** Steps */
            steps: components["schemas"]["StepOut"][];
            /** Runnable */
            runnable: boolean;
        };
        /**
         * PriceIn
         * @description What an answer or a row costs.
         */
        PriceIn: {
            /**
             * Unit
             * @default answer
             * @enum {string}
             */
            unit?: "answer" | "row";
            /**
             * Micro
             * @description millionths of the currency
             */
            micro: number;
            /** Currency */
            currency: string;
        };
        /**
         * PriceOut
         * @description What one answer or one row costs.
         */
        PriceOut: {
            /** Unit */
            unit: string;
            /**
             * Micro
             * @description millionths of the currency
             */
            micro: number;
            /** Currency */
            currency: string;
        };
        /**
         * PullIn
         * @description From where.
         */
        PullIn: {
            /**
             * Peers
             * @description ids or names of peers to ask first
             * @default []
             */
            peers?: string[];
        };
        /**
         * PulledOut
         * @description A model whose files are here.
         */
        PulledOut: {
            /** Model */
            model: string;
            /** Name */
            name: string;
            /** Bytes */
            bytes: number;
        };
        /**
         * QuorumIn
         * @description n replicas of each step, k of which must agree.
         */
        QuorumIn: {
            /** N */
            n: number;
            /** K */
            k: number;
        };
        /**
         * ReadyOut
         * @description What it can do now.
         */
        ReadyOut: {
            /** Ready */
            ready: boolean;
            /** Swarm Joined */
            swarm_joined: boolean;
            /** Workers Ready */
            workers_ready: boolean;
            /** Disk Ok */
            disk_ok: boolean;
        };
        /**
         * RevokeIn
         * @description Who may no longer.
         */
        RevokeIn: {
            /** Peer */
            peer: string;
            /**
             * Reason
             * @default
             */
            reason?: string;
        };
        /**
         * RevokedOut
         * @description Grants that were taken back.
         */
        RevokedOut: {
            /** Name */
            name: string;
            /** Peer */
            peer: string;
            /**
             * Revoked
             * @description ids of the grants
             */
            revoked: string[];
        };
        /**
         * RuleIn
         * @description How answers become a result.
         */
        RuleIn: {
            /**
             * Method
             * @default
             */
            method?: string;
            /** Weights */
            weights?: number[];
        };
        /**
         * StandingOut
         * @description Standing.
         */
        StandingOut: {
            /** Standing */
            standing: components["schemas"]["StandingRow"][];
        };
        /**
         * StandingRow
         * @description One peer in one context.
         */
        StandingRow: {
            /** Peer */
            peer: string;
            /** Name */
            name: string;
            /** Context */
            context: string;
            /**
             * Mean
             * @description expected share of good answers, 0 to 1
             */
            mean: number;
            /** Events */
            events: number;
            /** Barred Until Ms */
            barred_until_ms: number | null;
        };
        /**
         * StatusOut
         * @description The node.
         */
        StatusOut: {
            /** Peer */
            peer: string;
            /** Name */
            name: string;
            /** Version */
            version: string;
            /** Addresses */
            addresses: string[];
            /** Up Seconds */
            up_seconds: number;
            /** Peers Linked */
            peers_linked: number;
            /** Peers Known */
            peers_known: number;
            /** Jobs Open */
            jobs_open: number;
            /** Tasks Held */
            tasks_held: number;
            /** Tasks Queued */
            tasks_queued: number;
            /** Tasks Running */
            tasks_running: number;
            /** Workers */
            workers: number;
            /** Models */
            models: number;
            /** Cabinets */
            cabinets: number;
            /** Rss Bytes */
            rss_bytes: number;
            /** Loop Late P99 Ms */
            loop_late_p99_ms: number;
        };
        Step: {
            [key: string]: unknown;
        };
        /**
         * StepIn
         * @description One step of a chain, or one model of a comparison.
         */
        StepIn: {
            /**
             * Modelid
             * @default
             */
            modelId?: string;
            /**
             * Node
             * @default
             */
            node?: string;
        };
        /**
         * StepOut
         * @description Where a step could run now.
         */
        StepOut: {
            /** Op */
            op: string;
            /** Model */
            model: string;
            /** Cabinet */
            cabinet: string;
            /** Peers */
            peers: string[];
        };
        /**
         * SubmitIn
         * @description `POST /api/inference/submit`.
         */
        SubmitIn: {
            /**
             * Pattern
             * @enum {string}
             */
            pattern: "collaborative" | "comparative" | "chained";
            config: components["schemas"]["ConfigIn"];
            /**
             * Inputdata
             * @description rows, or {name: rows}; here or in config
             */
            inputData?: unknown;
            /**
             * Priority
             * @default normal
             * @enum {string}
             */
            priority?: "low" | "normal" | "high";
        };
        /**
         * TakeIn
         * @description What becomes one input of the model.
         */
        TakeIn: {
            /** Name */
            name: string;
            /**
             * From
             * @description input, input.1 or step.0
             * @default input
             */
            from?: string;
            /**
             * Tensor
             * @default
             */
            tensor?: string;
            /**
             * Columns
             * @description [first, one past the last]
             */
            columns?: [
                number,
                number
            ] | null;
        };
        /**
         * TakesOut
         * @description What a model takes in place of tensors, where its manifest says how it becomes some.
         */
        TakesOut: {
            /** Name */
            name: string;
            /**
             * Kind
             * @description text, image, audio, bytes, rows or tensor
             */
            kind: string;
            /** Columns */
            columns: string[];
            /** Dtype */
            dtype: string;
            /** Shape */
            shape: number[];
        };
        /**
         * TaskIn
         * @description One step, vote or site.
         */
        TaskIn: {
            /**
             * Model
             * @description a name, name:version, publisher/name:version or an id
             * @default
             */
            model?: string;
            /**
             * Op
             * @default infer
             * @enum {string}
             */
            op?: "infer" | "evaluate" | "statistics";
            /**
             * Peer
             * @description there and nowhere else
             * @default
             */
            peer?: string;
            /**
             * Cabinet
             * @default
             */
            cabinet?: string;
            /**
             * Purpose
             * @default
             */
            purpose?: string;
            /** Take */
            take?: components["schemas"]["TakeIn"][];
            /** Where */
            where?: components["schemas"]["ConditionIn"][];
        };
        TensorKind: [
            string,
            string,
            number[]
        ];
        /**
         * TensorOut
         * @description One named array.
         */
        TensorOut: {
            /** Name */
            name: string;
            /** Dtype */
            dtype: string;
            /** Shape */
            shape: number[];
            /**
             * Values
             * @description nested lists; null when there are too many to show: fetch the blob
             */
            values: unknown;
        };
        /**
         * Trouble
         * @description What went wrong, in OpenAI's words plus a hint.
         */
        Trouble: {
            /**
             * Message
             * @description what failed, and the likely cause
             */
            message: string;
            /** Type */
            type: string;
            /**
             * Param
             * @description the place in the request
             */
            param: string | null;
            /**
             * Code
             * @description E-<room>-<nn>, the same as on the command line
             */
            code: string;
            /**
             * Hint
             * @description what to do next
             */
            hint: string;
        };
        /**
         * UploadedFile
         * @description One file of a model of several.
         */
        UploadedFile: {
            /**
             * Path
             * @description its path in the model, such as vocab/tokenizer.json
             */
            path: string;
            /**
             * Blob
             * @description what POST /dim/v1/blobs named it
             */
            blob: string;
            /**
             * Role
             * @description empty: by its name
             * @default
             * @enum {string}
             */
            role?: "" | "model" | "weights" | "config" | "tokenizer" | "labels" | "other";
        };
        /**
         * UsageOut
         * @description Tokens.
         */
        UsageOut: {
            /** Prompt Tokens */
            prompt_tokens: number;
            /** Total Tokens */
            total_tokens: number;
        };
        /**
         * WhyContext
         * @description One context.
         */
        WhyContext: {
            /** Context */
            context: string;
            /** Alpha */
            alpha: number;
            /** Beta */
            beta: number;
            /** Mean */
            mean: number;
            /** Barred Until Ms */
            barred_until_ms: number | null;
            /** Events */
            events: components["schemas"]["WhyEvent"][];
        };
        /**
         * WhyEvent
         * @description One experience.
         */
        WhyEvent: {
            /** At Ms */
            at_ms: number;
            /** Good */
            good: boolean;
            /** Kind */
            kind: string;
            /** Weight */
            weight: number;
            /** Record */
            record: string;
        };
        /**
         * WhyOut
         * @description Why a peer stands as it does.
         */
        WhyOut: {
            /** Peer */
            peer: string;
            /** Contexts */
            contexts: components["schemas"]["WhyContext"][];
        };
        /**
         * WithdrawIn
         * @description Why a model is taken back.
         */
        WithdrawIn: {
            /**
             * Reason
             * @default
             */
            reason?: string;
            /**
             * Replacement
             * @description the model to use instead
             * @default
             */
            replacement?: string;
        };
        /**
         * WithdrawnOut
         * @description A model that was taken back.
         */
        WithdrawnOut: {
            /** Model */
            model: string;
            /** Name */
            name: string;
            /**
             * Withdrawal
             * @description the id of the record
             */
            withdrawal: string;
        };
    };
    responses: {
        /** @description the request is wrong */
        Error400: {
            headers: {
                "X-Request-Id": components["headers"]["X-Request-Id"];
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "error": {
                 *         "message": "body.tasks: Field required",
                 *         "type": "invalid_request_error",
                 *         "param": null,
                 *         "code": "E-http-13",
                 *         "hint": "docs/http.md, or /docs on this node"
                 *       }
                 *     }
                 */
                "application/json": components["schemas"]["ErrorOut"];
            };
        };
        /** @description no valid key */
        Error401: {
            headers: {
                "X-Request-Id": components["headers"]["X-Request-Id"];
                "WWW-Authenticate": components["headers"]["WWW-Authenticate"];
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "error": {
                 *         "message": "a valid key is needed: no key was given",
                 *         "type": "authentication_error",
                 *         "param": null,
                 *         "code": "E-http-01",
                 *         "hint": "dim keys new, then Authorization: Bearer KEY"
                 *       }
                 *     }
                 */
                "application/json": components["schemas"]["ErrorOut"];
            };
        };
        /** @description not with this key, host or origin */
        Error403: {
            headers: {
                "X-Request-Id": components["headers"]["X-Request-Id"];
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "error": {
                 *         "message": "this key may not do that: it lacks the scope submit: it has: read",
                 *         "type": "permission_error",
                 *         "param": null,
                 *         "code": "E-http-02",
                 *         "hint": "dim keys new --scope submit"
                 *       }
                 *     }
                 */
                "application/json": components["schemas"]["ErrorOut"];
            };
        };
        /** @description not there, or not this key's */
        Error404: {
            headers: {
                "X-Request-Id": components["headers"]["X-Request-Id"];
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "error": {
                 *         "message": "no job 'x'",
                 *         "type": "not_found_error",
                 *         "param": null,
                 *         "code": "E-job-13",
                 *         "hint": "GET /dim/v1/jobs"
                 *       }
                 *     }
                 */
                "application/json": components["schemas"]["ErrorOut"];
            };
        };
        /** @description not now, or not like this again */
        Error409: {
            headers: {
                "X-Request-Id": components["headers"]["X-Request-Id"];
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "error": {
                 *         "message": "this job has no verdict yet",
                 *         "type": "conflict_error",
                 *         "param": null,
                 *         "code": "E-job-12",
                 *         "hint": "GET /dim/v1/jobs/JOB"
                 *       }
                 *     }
                 */
                "application/json": components["schemas"]["ErrorOut"];
            };
        };
        /** @description too large */
        Error413: {
            headers: {
                "X-Request-Id": components["headers"]["X-Request-Id"];
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "error": {
                 *         "message": "the body is too large: at most 16777216 bytes",
                 *         "type": "invalid_request_error",
                 *         "param": null,
                 *         "code": "E-http-06",
                 *         "hint": "give fewer rows at a time"
                 *       }
                 *     }
                 */
                "application/json": components["schemas"]["ErrorOut"];
            };
        };
        /** @description bodies are JSON */
        Error415: {
            headers: {
                "X-Request-Id": components["headers"]["X-Request-Id"];
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "error": {
                 *         "message": "bodies are application/json, not text/html",
                 *         "type": "invalid_request_error",
                 *         "param": null,
                 *         "code": "E-http-05",
                 *         "hint": ""
                 *       }
                 *     }
                 */
                "application/json": components["schemas"]["ErrorOut"];
            };
        };
        /** @description too often; see Retry-After */
        Error429: {
            headers: {
                "X-Request-Id": components["headers"]["X-Request-Id"];
                "Retry-After": components["headers"]["Retry-After"];
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "error": {
                 *         "message": "this key may ask 6000 times a minute",
                 *         "type": "rate_limit_error",
                 *         "param": null,
                 *         "code": "E-http-07",
                 *         "hint": "wait, or dim keys new --per-minute N"
                 *       }
                 *     }
                 */
                "application/json": components["schemas"]["ErrorOut"];
            };
        };
        /** @description a bug in dimnode */
        Error500: {
            headers: {
                "X-Request-Id": components["headers"]["X-Request-Id"];
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "error": {
                 *         "message": "a bug in dimnode",
                 *         "type": "server_error",
                 *         "param": null,
                 *         "code": "E-http-99",
                 *         "hint": "report the lines in the node's log"
                 *       }
                 *     }
                 */
                "application/json": components["schemas"]["ErrorOut"];
            };
        };
        /** @description nobody can do it now; see Retry-After */
        Error503: {
            headers: {
                "X-Request-Id": components["headers"]["X-Request-Id"];
                "Retry-After": components["headers"]["Retry-After"];
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "error": {
                 *         "message": "this node answers too many requests now",
                 *         "type": "overloaded_error",
                 *         "param": null,
                 *         "code": "E-http-12",
                 *         "hint": "try again"
                 *       }
                 *     }
                 */
                "application/json": components["schemas"]["ErrorOut"];
            };
        };
        /** @description nothing is there to be had */
        Error416: {
            headers: {
                "X-Request-Id": components["headers"]["X-Request-Id"];
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "error": {
                 *         "message": "the upload has 42 bytes and none from there on",
                 *         "type": "invalid_request_error",
                 *         "param": null,
                 *         "code": "E-http-18",
                 *         "hint": "a Range within it"
                 *       }
                 *     }
                 */
                "application/json": components["schemas"]["ErrorOut"];
            };
        };
    };
    parameters: {
        /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
        RequestId: string;
        /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
        TraceParent: string;
    };
    requestBodies: never;
    headers: {
        /**
         * @description The request's id: the client's own, or a fresh one. It stands in the node's log.
         * @example 7f3a09c25d1e4b68
         */
        "X-Request-Id": string;
        /**
         * @description Of an ended job: the id of its verdict, the root of its receipt.
         * @example bagaqieranijpou7uxpviwho5k7fu2kptygkr6zqsrhxwdpqtkzlb3xrjvj5a
         */
        "X-Dimnode-Receipt": string;
        /**
         * @description The id of the job that computed this.
         * @example bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq
         */
        "X-Dimnode-Job": string;
        /**
         * @description In how many seconds to come back.
         * @example 1
         */
        "Retry-After": string;
        /**
         * @description What kind of key is wanted.
         * @example Bearer realm="dimnode"
         */
        "WWW-Authenticate": string;
        /**
         * @description A file to be saved, never to be shown.
         * @example attachment
         */
        "Content-Disposition": string;
        /**
         * @description Which bytes of how many.
         * @example bytes 0-9/1000
         */
        "Content-Range": string;
    };
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    validate_dim_v1_jobs_validate_post: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["JobIn"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "pattern": "chained",
                     *       "tier": "signed",
                     *       "cost_factor": 1,
                     *       "residual_risk": "the executor may lie; its signature says who did",
                     *       "steps": [
                     *         {
                     *           "op": "infer",
                     *           "model": "triage:1.0.0",
                     *           "cabinet": "",
                     *           "peers": [
                     *             "12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG"
                     *           ]
                     *         }
                     *       ],
                     *       "runnable": true
                     *     }
                     */
                    "application/json": components["schemas"]["PlanOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    jobs_dim_v1_jobs_get: {
        parameters: {
            query?: {
                /** @description How many at most. */
                most?: number;
                /** @description Only what is older than this: milliseconds since 1970. */
                before_ms?: number;
            };
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "jobs": [
                     *         {
                     *           "job": "bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq",
                     *           "label": "",
                     *           "pattern": "chained",
                     *           "tier": "signed",
                     *           "at_ms": 1790000000000,
                     *           "status": "ok"
                     *         }
                     *       ],
                     *       "before_ms": null
                     *     }
                     */
                    "application/json": components["schemas"]["JobsOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    submit_dim_v1_jobs_post: {
        parameters: {
            query?: {
                /** @description seconds to wait for its end */
                wait?: number;
            };
            header?: {
                /** @description 1 to 255 plain letters: with the same body the same job, also after a restart. */
                "idempotency-key"?: string;
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["JobIn"];
            };
        };
        responses: {
            /** @description OK */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    "X-Dimnode-Receipt": components["headers"]["X-Dimnode-Receipt"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "job": "bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq",
                     *       "status": "ok",
                     *       "verdict": "bagaqieranijpou7uxpviwho5k7fu2kptygkr6zqsrhxwdpqtkzlb3xrjvj5a",
                     *       "outputs": [
                     *         {
                     *           "blob": "bafkreiev36t5hkoszbyqwgwienhdfg5afxm7azb5dyw3xspyee2i2tnyha",
                     *           "bytes": 42,
                     *           "tensors": [
                     *             {
                     *               "name": "label",
                     *               "dtype": "int64",
                     *               "shape": [
                     *                 1
                     *               ],
                     *               "values": [
                     *                 1
                     *               ]
                     *             }
                     *           ],
                     *           "predicted": [
                     *             "malignant"
                     *           ]
                     *         }
                     *       ],
                     *       "receipt": "/dim/v1/jobs/bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq/receipt",
                     *       "events": "/dim/v1/jobs/bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq/events"
                     *     }
                     */
                    "application/json": components["schemas"]["JobOut"];
                };
            };
            /** @description Successful Response */
            202: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    "X-Dimnode-Receipt": components["headers"]["X-Dimnode-Receipt"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "job": "bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq",
                     *       "status": "ok",
                     *       "verdict": "bagaqieranijpou7uxpviwho5k7fu2kptygkr6zqsrhxwdpqtkzlb3xrjvj5a",
                     *       "outputs": [
                     *         {
                     *           "blob": "bafkreiev36t5hkoszbyqwgwienhdfg5afxm7azb5dyw3xspyee2i2tnyha",
                     *           "bytes": 42,
                     *           "tensors": [
                     *             {
                     *               "name": "label",
                     *               "dtype": "int64",
                     *               "shape": [
                     *                 1
                     *               ],
                     *               "values": [
                     *                 1
                     *               ]
                     *             }
                     *           ],
                     *           "predicted": [
                     *             "malignant"
                     *           ]
                     *         }
                     *       ],
                     *       "receipt": "/dim/v1/jobs/bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq/receipt",
                     *       "events": "/dim/v1/jobs/bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq/events"
                     *     }
                     */
                    "application/json": components["schemas"]["JobOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    show_dim_v1_jobs__job__get: {
        parameters: {
            query?: {
                /** @description seconds to wait for its end */
                wait?: number;
            };
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description The job's id.
                 * @example bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq
                 */
                job: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    "X-Dimnode-Receipt": components["headers"]["X-Dimnode-Receipt"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "job": "bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq",
                     *       "status": "ok",
                     *       "verdict": "bagaqieranijpou7uxpviwho5k7fu2kptygkr6zqsrhxwdpqtkzlb3xrjvj5a",
                     *       "outputs": [
                     *         {
                     *           "blob": "bafkreiev36t5hkoszbyqwgwienhdfg5afxm7azb5dyw3xspyee2i2tnyha",
                     *           "bytes": 42,
                     *           "tensors": [
                     *             {
                     *               "name": "label",
                     *               "dtype": "int64",
                     *               "shape": [
                     *                 1
                     *               ],
                     *               "values": [
                     *                 1
                     *               ]
                     *             }
                     *           ],
                     *           "predicted": [
                     *             "malignant"
                     *           ]
                     *         }
                     *       ],
                     *       "receipt": "/dim/v1/jobs/bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq/receipt",
                     *       "events": "/dim/v1/jobs/bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq/events"
                     *     }
                     */
                    "application/json": components["schemas"]["JobOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    cancel_dim_v1_jobs__job__cancel_post: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description The job's id.
                 * @example bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq
                 */
                job: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "job": "bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq",
                     *       "cancelling": true
                     *     }
                     */
                    "application/json": components["schemas"]["CancelOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    events_dim_v1_jobs__job__events_get: {
        parameters: {
            query?: {
                /** @description only events after this id */
                after?: number;
            };
            header?: {
                /** @description The last event that was seen; what comes then is sent. */
                "last-event-id"?: string;
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description The job's id.
                 * @example bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq
                 */
                job: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "events": [
                     *         {
                     *           "id": 1,
                     *           "what": "submitted",
                     *           "at_ms": 1790000000000,
                     *           "task": 0,
                     *           "epoch": 0,
                     *           "peer": "12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG",
                     *           "text": ""
                     *         },
                     *         {
                     *           "id": 2,
                     *           "what": "leased",
                     *           "at_ms": 1790000000000,
                     *           "task": 0,
                     *           "epoch": 0,
                     *           "peer": "12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG",
                     *           "text": ""
                     *         }
                     *       ],
                     *       "last": 2
                     *     }
                     */
                    "application/json": components["schemas"]["EventsOut"];
                    /**
                     * @example id: 1
                     *     event: submitted
                     *     data: {"id":1,"at_ms":1790000000000,"what":"submitted","task":0,"epoch":0,"peer":"12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG","text":""}
                     */
                    "text/event-stream": string;
                };
            };
            /** @description a stream of an ended job after its last event: do not come back */
            204: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    receipt_dim_v1_jobs__job__receipt_get: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description The job's id.
                 * @example bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq
                 */
                job: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    "Content-Disposition": components["headers"]["Content-Disposition"];
                    "X-Dimnode-Receipt": components["headers"]["X-Dimnode-Receipt"];
                    [name: string]: unknown;
                };
                content: {
                    "application/vnd.dimnode.receipt": string;
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    receipt_of_verdict_dim_v1_receipts__verdict__get: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description The id of a verdict.
                 * @example bagaqieranijpou7uxpviwho5k7fu2kptygkr6zqsrhxwdpqtkzlb3xrjvj5a
                 */
                verdict: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    "Content-Disposition": components["headers"]["Content-Disposition"];
                    "X-Dimnode-Receipt": components["headers"]["X-Dimnode-Receipt"];
                    [name: string]: unknown;
                };
                content: {
                    "application/vnd.dimnode.receipt": string;
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    upload_dim_v1_blobs_post: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/octet-stream": string;
            };
        };
        responses: {
            /** @description Successful Response */
            201: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "blob": "bafkreiev36t5hkoszbyqwgwienhdfg5afxm7azb5dyw3xspyee2i2tnyha",
                     *       "bytes": 42
                     *     }
                     */
                    "application/json": components["schemas"]["BlobOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    download_dim_v1_blobs__blob__get: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description The id of a blob.
                 * @example bafkreiev36t5hkoszbyqwgwienhdfg5afxm7azb5dyw3xspyee2i2tnyha
                 */
                blob: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description the bytes */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    "Content-Disposition": components["headers"]["Content-Disposition"];
                    [name: string]: unknown;
                };
                content: {
                    "application/octet-stream": string;
                };
            };
            /** @description the bytes of the `Range` */
            206: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    "Content-Range": components["headers"]["Content-Range"];
                    "Content-Disposition": components["headers"]["Content-Disposition"];
                    [name: string]: unknown;
                };
                content: {
                    "application/octet-stream": string;
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            416: components["responses"]["Error416"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    job_blob_dim_v1_jobs__job__blobs__blob__get: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description The job's id.
                 * @example bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq
                 */
                job: string;
                /**
                 * @description The id of a blob.
                 * @example bafkreiev36t5hkoszbyqwgwienhdfg5afxm7azb5dyw3xspyee2i2tnyha
                 */
                blob: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description the bytes */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    "Content-Disposition": components["headers"]["Content-Disposition"];
                    [name: string]: unknown;
                };
                content: {
                    "application/octet-stream": string;
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    models_dim_v1_models_get: {
        parameters: {
            query?: {
                /** @description All that one peer publishes, by its index: its id, the last letters of it, or its name. */
                publisher?: string;
            };
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "models": [
                     *         {
                     *           "model": "bagaqierambw2vu5j7lux3srhxdmh4a6ar2vdj56h5u4kyu3awbv6nuyi6k2q",
                     *           "name": "triage:1.0.0",
                     *           "publisher": "12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG",
                     *           "format": "onnx",
                     *           "origin": "trained",
                     *           "access": "public",
                     *           "allowed": true,
                     *           "mine": false,
                     *           "licence": "Apache-2.0",
                     *           "summary": "an example",
                     *           "labels": [
                     *             "benign",
                     *             "malignant"
                     *           ],
                     *           "inputs": [
                     *             [
                     *               "x",
                     *               "float32",
                     *               [
                     *                 -1,
                     *                 2
                     *               ]
                     *             ]
                     *           ],
                     *           "outputs": [
                     *             [
                     *               "y",
                     *               "int64",
                     *               [
                     *                 -1
                     *               ]
                     *             ]
                     *           ],
                     *           "takes": [
                     *             {
                     *               "name": "text",
                     *               "kind": "text",
                     *               "columns": [],
                     *               "dtype": "float64",
                     *               "shape": []
                     *             }
                     *           ],
                     *           "texts": [
                     *             "word"
                     *           ],
                     *           "bytes": 2048,
                     *           "here": false,
                     *           "peers": [
                     *             "12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG"
                     *           ]
                     *         }
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["ModelsOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    add_model_dim_v1_models_post: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ModelIn"];
            };
        };
        responses: {
            /** @description Successful Response */
            201: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "model": "bagaqierambw2vu5j7lux3srhxdmh4a6ar2vdj56h5u4kyu3awbv6nuyi6k2q",
                     *       "name": "triage:1.1.0",
                     *       "access": "public"
                     *     }
                     */
                    "application/json": components["schemas"]["AddedOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    pull_dim_v1_models__model__pull_post: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description A name, name:version or id.
                 * @example triage
                 */
                model: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["PullIn"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "model": "bagaqierambw2vu5j7lux3srhxdmh4a6ar2vdj56h5u4kyu3awbv6nuyi6k2q",
                     *       "name": "triage:1.0.0",
                     *       "bytes": 2048
                     *     }
                     */
                    "application/json": components["schemas"]["PulledOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    verify_dim_v1_models__model__verify_post: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description A name, name:version or id.
                 * @example triage
                 */
                model: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "model": "bagaqierambw2vu5j7lux3srhxdmh4a6ar2vdj56h5u4kyu3awbv6nuyi6k2q",
                     *       "name": "triage:1.0.0",
                     *       "holds": true,
                     *       "files": [
                     *         {
                     *           "path": "model.onnx",
                     *           "root": "bafkreiev36t5hkoszbyqwgwienhdfg5afxm7azb5dyw3xspyee2i2tnyha",
                     *           "bytes": 2048,
                     *           "state": "holds"
                     *         }
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["CheckedOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    grant_dim_v1_models__model__grant_post: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description A name, name:version or id.
                 * @example triage
                 */
                model: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["GrantIn"];
            };
        };
        responses: {
            /** @description Successful Response */
            201: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "peer": "12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG",
                     *       "operations": [
                     *         "infer"
                     *       ],
                     *       "expires_ms": 1790000000000,
                     *       "terms": "",
                     *       "grant": "bagaqieranijpou7uxpviwho5k7fu2kptygkr6zqsrhxwdpqtkzlb3xrjvj5a",
                     *       "name": "triage:1.0.0"
                     *     }
                     */
                    "application/json": components["schemas"]["GrantedOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    revoke_dim_v1_models__model__revoke_post: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description A name, name:version or id.
                 * @example triage
                 */
                model: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["RevokeIn"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "name": "triage:1.0.0",
                     *       "peer": "12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG",
                     *       "revoked": [
                     *         "bagaqieranijpou7uxpviwho5k7fu2kptygkr6zqsrhxwdpqtkzlb3xrjvj5a"
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["RevokedOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    withdraw_dim_v1_models__model__withdraw_post: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description A name, name:version or id.
                 * @example triage
                 */
                model: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["WithdrawIn"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "model": "bagaqierambw2vu5j7lux3srhxdmh4a6ar2vdj56h5u4kyu3awbv6nuyi6k2q",
                     *       "name": "triage:1.0.0",
                     *       "withdrawal": "bagaqieranijpou7uxpviwho5k7fu2kptygkr6zqsrhxwdpqtkzlb3xrjvj5a"
                     *     }
                     */
                    "application/json": components["schemas"]["WithdrawnOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    model_dim_v1_models__model__get: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description A name, name:version or id.
                 * @example triage
                 */
                model: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "model": "bagaqierambw2vu5j7lux3srhxdmh4a6ar2vdj56h5u4kyu3awbv6nuyi6k2q",
                     *       "name": "triage:1.0.0",
                     *       "publisher": "12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG",
                     *       "format": "onnx",
                     *       "origin": "trained",
                     *       "access": "public",
                     *       "allowed": true,
                     *       "mine": false,
                     *       "licence": "Apache-2.0",
                     *       "summary": "an example",
                     *       "labels": [
                     *         "benign",
                     *         "malignant"
                     *       ],
                     *       "inputs": [
                     *         [
                     *           "x",
                     *           "float32",
                     *           [
                     *             -1,
                     *             2
                     *           ]
                     *         ]
                     *       ],
                     *       "outputs": [
                     *         [
                     *           "y",
                     *           "int64",
                     *           [
                     *             -1
                     *           ]
                     *         ]
                     *       ],
                     *       "takes": [
                     *         {
                     *           "name": "text",
                     *           "kind": "text",
                     *           "columns": [],
                     *           "dtype": "float64",
                     *           "shape": []
                     *         }
                     *       ],
                     *       "texts": [
                     *         "word"
                     *       ],
                     *       "bytes": 2048,
                     *       "here": false,
                     *       "peers": [
                     *         "12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG"
                     *       ],
                     *       "version": "1.0.0",
                     *       "at_ms": 1790000000000,
                     *       "profile": "unixfs-v1-2025",
                     *       "files": [
                     *         {
                     *           "path": "model.onnx",
                     *           "root": "bafkreiev36t5hkoszbyqwgwienhdfg5afxm7azb5dyw3xspyee2i2tnyha",
                     *           "bytes": 2048,
                     *           "role": "model"
                     *         }
                     *       ],
                     *       "may": {
                     *         "infer": {
                     *           "allowed": true,
                     *           "code": "",
                     *           "why": "it is public"
                     *         }
                     *       },
                     *       "price": {
                     *         "unit": "row",
                     *         "micro": 5,
                     *         "currency": "EUR"
                     *       },
                     *       "previous": "",
                     *       "lineage": [
                     *         [
                     *           "finetuned",
                     *           "bagaqierambw2vu5j7lux3srhxdmh4a6ar2vdj56h5u4kyu3awbv6nuyi6k2q"
                     *         ]
                     *       ],
                     *       "architecture": "",
                     *       "dtype": "float32",
                     *       "quantisation": "",
                     *       "memory_bytes": 0,
                     *       "max_batch": 0,
                     *       "pre": [
                     *         {
                     *           "op": "input",
                     *           "name": "text",
                     *           "kind": "text"
                     *         }
                     *       ],
                     *       "post": [],
                     *       "withdrawn": null,
                     *       "replacement": "",
                     *       "newer": [
                     *         "triage:1.1.0"
                     *       ],
                     *       "grants": [
                     *         {
                     *           "peer": "12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG",
                     *           "operations": [
                     *             "infer"
                     *           ],
                     *           "expires_ms": 1790000000000,
                     *           "terms": "",
                     *           "revoked": false
                     *         }
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["ModelShown"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    cabinets_dim_v1_data_get: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "cabinets": [
                     *         {
                     *           "name": "patients",
                     *           "peer": "self",
                     *           "columns": [
                     *             "age",
                     *             "label"
                     *           ],
                     *           "operations": [
                     *             "evaluate"
                     *           ]
                     *         }
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["CabinetsOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    peers_dim_v1_peers_get: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "me": "12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG",
                     *       "peers": [
                     *         {
                     *           "peer": "12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG",
                     *           "name": "brio",
                     *           "linked": true,
                     *           "path": "direct",
                     *           "rtt_ms": 0.8,
                     *           "agent": "dimnode/0.1.0",
                     *           "models": [
                     *             "triage:1.0.0"
                     *           ],
                     *           "slots": 10,
                     *           "free_slots": 9,
                     *           "load_percent": 12.5,
                     *           "sandbox": "landlock+seccomp+rlimits+netns+nocaps",
                     *           "heard_seconds_ago": 1.5
                     *         }
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["PeersOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    standing_dim_v1_standing_get: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "standing": [
                     *         {
                     *           "peer": "12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG",
                     *           "name": "brio",
                     *           "context": "infer",
                     *           "mean": 0.9,
                     *           "events": 8,
                     *           "barred_until_ms": null
                     *         }
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["StandingOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    why_dim_v1_standing__peer__get: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description A peer's id or name.
                 * @example 12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG
                 */
                peer: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "peer": "12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG",
                     *       "contexts": [
                     *         {
                     *           "context": "infer",
                     *           "alpha": 9,
                     *           "beta": 1,
                     *           "mean": 0.9,
                     *           "barred_until_ms": null,
                     *           "events": [
                     *             {
                     *               "at_ms": 1790000000000,
                     *               "good": true,
                     *               "kind": "agreed",
                     *               "weight": 1,
                     *               "record": "bagaqieranijpou7uxpviwho5k7fu2kptygkr6zqsrhxwdpqtkzlb3xrjvj5a"
                     *             }
                     *           ]
                     *         }
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["WhyOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    status_dim_v1_status_get: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "peer": "12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG",
                     *       "name": "alba",
                     *       "version": "dimnode/0.1.0",
                     *       "addresses": [
                     *         "/ip4/127.0.0.1/tcp/4710/p2p/12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG"
                     *       ],
                     *       "up_seconds": 12.5,
                     *       "peers_linked": 1,
                     *       "peers_known": 1,
                     *       "jobs_open": 0,
                     *       "tasks_held": 0,
                     *       "tasks_queued": 0,
                     *       "tasks_running": 0,
                     *       "workers": 2,
                     *       "models": 1,
                     *       "cabinets": 0,
                     *       "rss_bytes": 90000000,
                     *       "loop_late_p99_ms": 0.4
                     *     }
                     */
                    "application/json": components["schemas"]["StatusOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    health_health_get: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "ok": true
                     *     }
                     */
                    "application/json": components["schemas"]["HealthOut"];
                };
            };
            400: components["responses"]["Error400"];
            403: components["responses"]["Error403"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    ready_ready_get: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "ready": true,
                     *       "swarm_joined": true,
                     *       "workers_ready": true,
                     *       "disk_ok": true
                     *     }
                     */
                    "application/json": components["schemas"]["ReadyOut"];
                };
            };
            400: components["responses"]["Error400"];
            403: components["responses"]["Error403"];
            500: components["responses"]["Error500"];
            /** @description Service Unavailable */
            503: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    "Retry-After": components["headers"]["Retry-After"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "ready": true,
                     *       "swarm_joined": true,
                     *       "workers_ready": true,
                     *       "disk_ok": true
                     *     }
                     */
                    "application/json": components["schemas"]["ReadyOut"] | components["schemas"]["ErrorOut"];
                };
            };
        };
    };
    metrics_metrics_get: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description the text format, version 0.0.4 */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    models_v1_models_get: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "object": "list",
                     *       "data": [
                     *         {
                     *           "id": "minilm:1.0.0",
                     *           "object": "model",
                     *           "created": 1790000000,
                     *           "owned_by": "…Vxz3vA7DG"
                     *         }
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["OpenAiModels"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    model_v1_models__model__get: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description A name, name:version or id.
                 * @example triage
                 */
                model: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "minilm:1.0.0",
                     *       "object": "model",
                     *       "created": 1790000000,
                     *       "owned_by": "…Vxz3vA7DG"
                     *     }
                     */
                    "application/json": components["schemas"]["OpenAiModel"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    embeddings_v1_embeddings_post: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["EmbeddingsIn"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    "X-Dimnode-Receipt": components["headers"]["X-Dimnode-Receipt"];
                    "X-Dimnode-Job": components["headers"]["X-Dimnode-Job"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "object": "list",
                     *       "data": [
                     *         {
                     *           "object": "embedding",
                     *           "index": 0,
                     *           "embedding": [
                     *             0.1,
                     *             -0.2,
                     *             0.3
                     *           ]
                     *         }
                     *       ],
                     *       "model": "minilm:1.0.0",
                     *       "usage": {
                     *         "prompt_tokens": 7,
                     *         "total_tokens": 7
                     *       }
                     *     }
                     */
                    "application/json": components["schemas"]["EmbeddingsOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    submit_api_inference_submit_post: {
        parameters: {
            query?: never;
            header?: {
                /** @description 1 to 255 plain letters: with the same body the same job, also after a restart. */
                "idempotency-key"?: string;
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["SubmitIn"];
            };
        };
        responses: {
            /** @description Successful Response */
            202: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "jobId": "bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq",
                     *       "status": "completed",
                     *       "pattern": "chained",
                     *       "code": "",
                     *       "reason": ""
                     *     }
                     */
                    "application/json": components["schemas"]["JobStatusOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    status_api_inference_status__job_id__get: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description The job's id.
                 * @example bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq
                 */
                job_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "jobId": "bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq",
                     *       "status": "completed",
                     *       "pattern": "chained",
                     *       "code": "",
                     *       "reason": ""
                     *     }
                     */
                    "application/json": components["schemas"]["JobStatusOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    result_api_inference_result__job_id__get: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description The job's id.
                 * @example bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq
                 */
                job_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    "X-Dimnode-Receipt": components["headers"]["X-Dimnode-Receipt"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "jobId": "bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq",
                     *       "status": "completed",
                     *       "pattern": "chained",
                     *       "code": "",
                     *       "reason": "",
                     *       "outputs": [
                     *         {
                     *           "blob": "bafkreiev36t5hkoszbyqwgwienhdfg5afxm7azb5dyw3xspyee2i2tnyha",
                     *           "bytes": 42,
                     *           "tensors": [
                     *             {
                     *               "name": "label",
                     *               "dtype": "int64",
                     *               "shape": [
                     *                 1
                     *               ],
                     *               "values": [
                     *                 1
                     *               ]
                     *             }
                     *           ],
                     *           "predicted": [
                     *             "malignant"
                     *           ]
                     *         }
                     *       ],
                     *       "receipt": "/dim/v1/jobs/bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq/receipt"
                     *     }
                     */
                    "application/json": components["schemas"]["JobResultOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
    cancel_api_inference_cancel__job_id__post: {
        parameters: {
            query?: never;
            header?: {
                /** @description An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other is replaced. */
                "X-Request-Id"?: components["parameters"]["RequestId"];
                /** @description W3C trace context: it travels with the job. What is none is passed over. Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. */
                traceparent?: components["parameters"]["TraceParent"];
            };
            path: {
                /**
                 * @description The job's id.
                 * @example bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq
                 */
                job_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "jobId": "bagaqierawpo3za4x4x6qttl3tsgw7yilcdj6q4vvgxnowhssiaf7ynvitptq",
                     *       "status": "completed",
                     *       "pattern": "chained",
                     *       "code": "",
                     *       "reason": ""
                     *     }
                     */
                    "application/json": components["schemas"]["JobStatusOut"];
                };
            };
            400: components["responses"]["Error400"];
            401: components["responses"]["Error401"];
            403: components["responses"]["Error403"];
            404: components["responses"]["Error404"];
            409: components["responses"]["Error409"];
            413: components["responses"]["Error413"];
            415: components["responses"]["Error415"];
            429: components["responses"]["Error429"];
            500: components["responses"]["Error500"];
            503: components["responses"]["Error503"];
        };
    };
}
