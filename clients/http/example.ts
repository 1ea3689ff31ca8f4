// Hands a job in, follows its events to the end, and fetches the receipt. Nothing but fetch: Node.js, Deno, browsers.
//
//   node example.ts http://127.0.0.1:8710 dim_… triage '[[17.99, 10.38, …]]'    (Node.js 22.18 or newer runs it as it is)
//
// A stream that breaks is taken up again after the last event that was seen, so none is missed.

import type { components } from "./dimnode.d.ts";

export type Job = components["schemas"]["JobIn"];
export type JobAnswer = components["schemas"]["JobOut"];
export type JobEvent = components["schemas"]["EventOut"];
type Trouble = components["schemas"]["ErrorOut"];

export class Refused extends Error {
  readonly status: number;
  readonly code: string;
  readonly hint: string;

  constructor(status: number, { message, code, hint }: Trouble["error"]) {
    super(message);
    this.status = status;
    this.code = code;
    this.hint = hint;
  }
}

export class Door {
  readonly #url: string;
  readonly #key: string;

  constructor(url: string, key: string) {
    this.#url = url;
    this.#key = key;
  }

  /** The job is on the node's disk when this returns. The same `repeat` with the same job is the same job. */
  async submit(job: Job, repeat: string = crypto.randomUUID()): Promise<JobAnswer> {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": repeat };
    const answer = await this.#ask("/dim/v1/jobs", { method: "POST", headers, body: JSON.stringify(job) });
    return (await answer.json()) as JobAnswer;
  }

  async job(id: string): Promise<JobAnswer> {
    return (await (await this.#ask(`/dim/v1/jobs/${id}`)).json()) as JobAnswer;
  }

  /** Every event until the job has ended. */
  async *events(id: string): AsyncGenerator<JobEvent> {
    for (let last = 0; ; ) {
      const headers = { Accept: "text/event-stream", "Last-Event-ID": String(last) };
      const answer = await this.#ask(`/dim/v1/jobs/${id}/events`, { headers });
      for await (const event of eventsOf(answer)) {
        last = event.id ?? last;
        yield event;
        if (event.what === "ended") return;
      }
    }
  }

  /** For `dim verify`. */
  async receipt(id: string): Promise<Uint8Array> {
    const answer = await this.#ask(`/dim/v1/jobs/${id}/receipt`);
    return new Uint8Array(await answer.arrayBuffer());
  }

  async #ask(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = { ...(init.headers as Record<string, string>), Authorization: `Bearer ${this.#key}` };
    const answer = await fetch(this.#url + path, { ...init, headers });
    if (answer.ok) return answer;
    const { error } = (await answer.json()) as Trouble;
    throw new Refused(answer.status, error);
  }
}

async function* eventsOf(answer: Response): AsyncGenerator<JobEvent> {
  if (answer.body === null) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line.startsWith("data: ")) yield JSON.parse(line.slice(6)) as JobEvent;
  }
}

declare const process: { argv: string[] } | undefined; // only where this runs as a program

if (typeof process !== "undefined" && process.argv.length >= 6) {
  const [url = "", key = "", model = "", rows = ""] = process.argv.slice(2);
  const door = new Door(url, key);
  const { job } = await door.submit({ tasks: [{ model }], input: { x: JSON.parse(rows) } });
  for await (const event of door.events(job)) console.log(event.what, event.peer);
  const { status, outputs } = await door.job(job);
  console.log(status, JSON.stringify(outputs), (await door.receipt(job)).length, "bytes of receipt");
}
