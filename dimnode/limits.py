"""Every bound in the system. Frozen; the unit stands last in each name.

Rule: nothing in dimnode grows, waits or retries without a number from this file. One section per room.
"""

from dataclasses import dataclass, field

from dimnode.overlay_limits import (
    BitswapLimits,
    ConductLimits,
    ExchangeLimits,
    HostLimits,
    IndexLimits,
    KuboLimits,
    ReachLimits,
    SwarmLimits,
    VerifyLimits,
)

__all__ = [
    "LIMITS",
    "ApiLimits",
    "BitswapLimits",
    "CabinetLimits",
    "ConductLimits",
    "ConsensusLimits",
    "ExchangeLimits",
    "ExecLimits",
    "HostLimits",
    "HttpLimits",
    "IndexLimits",
    "JobLimits",
    "KuboLimits",
    "Limits",
    "PeerLimits",
    "ReachLimits",
    "RecordLimits",
    "StandingLimits",
    "StoreLimits",
    "SwarmLimits",
    "TransformLimits",
    "WireLimits",
]


@dataclass(frozen=True, slots=True)
class RecordLimits:
    """cmp/1 and receipts (docs/receipt.md)."""

    record_bytes_max: int = 64 * 1024
    record_depth_max: int = 8
    record_items_max: int = 4096
    list_entries_max: int = 512
    receipt_bytes_max: int = 64 * 1024 * 1024
    receipt_envelopes_max: int = 4096
    tensor_blob_bytes_max: int = 64 * 1024 * 1024
    tensors_per_blob_max: int = 64
    tensor_dimensions_max: int = 8


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Frames on the control socket and on peer streams."""

    frame_bytes_max: int = 2 * 1024 * 1024
    read_bytes: int = 64 * 1024
    question_bytes_max: int = 4 * 1024
    frame_containers_max: int = 262_144
    frame_depth_max: int = 256
    peer_frame_containers_max: int = 64


@dataclass(frozen=True, slots=True)
class ExecLimits:
    """Workers and their queue."""

    task_timeout_seconds: float = 120.0
    queue_tasks_max: int = 1024
    workers_max: int = 8
    worker_memory_bytes_max: int = 2 * 1024**3
    worker_start_seconds_max: float = 20.0
    schema_seconds_max: float = 60.0
    schema_bytes_max: int = 1024 * 1024
    output_bytes_max: int = 16 * 1024 * 1024
    input_bytes_max: int = 64 * 1024 * 1024
    quotas_max: int = 1024
    accounts_max: int = 4096
    workers_loaded_max: int = 32
    models_estimated_max: int = 256
    costs_written_seconds: float = 60.0
    costs_file_bytes_max: int = 1024 * 1024
    batch_rows_max: int = 8
    batch_seconds_max: float = 0.25
    batch_input_bytes_max: int = 128 * 1024
    benchmark_seconds: float = 0.5
    benchmark_seconds_max: float = 1.8
    bench_seconds_max: float = 5.0
    bench_batch_max: int = 64
    bench_batches_max: int = 8
    measured_runs_max: int = 1000
    measured_seconds_max: float = 1.0
    drain_retry_ms: int = 5000
    worker_bytes_expected: int = 64 * 1024**2
    head_start_seconds: float = 1.0
    memory_reserve_bytes: int = 256 * 1024**2
    memory_look_seconds: float = 1.0
    arena_slack_bytes: int = 8 * 1024**2
    worker_inflight_max: int = 16
    worker_idle_seconds_max: float = 300.0
    runtime_idle_seconds_min: float = 1.0
    runtime_idle_seconds_max: float = 7 * 24 * 3600.0
    priority_ageing_seconds: float = 10.0
    timeout_seconds_max: float = 24 * 3600.0
    queue_bytes_max: int = 256 * 1024 * 1024
    inline_input_bytes_max: int = 128 * 1024
    pipeline_run_ms_max: int = 5
    pair_run_ms_max: int = 50
    pipeline_bytes_max: int = 4 * 1024 * 1024
    worker_tenure_seconds: float = 0.25
    worker_file_bytes_max: int = 1024 * 1024
    worker_open_files_max: int = 128
    cancel_grace_seconds: float = 0.1
    exit_report_seconds_max: float = 1.0
    zygote_start_seconds_max: float = 20.0
    zygote_restarts_max: int = 8
    lanes_considered_max: int = 16
    model_bytes_max: int = 8 * 1024**3
    parsed_bytes_max: int = 1024**3  # of one file that has to be in memory as a whole: a checkpoint that is converted
    load_bytes_per_second_min: int = 128 * 1024**2
    weights_header_bytes_max: int = 8 * 1024 * 1024
    weights_tensors_max: int = 20_000
    model_config_bytes_max: int = 256 * 1024
    model_layers_max: int = 256
    message_characters_max: int = 400
    evaluate_batch_rows: int = 256
    evaluate_classes_max: int = 64
    rows_file_bytes_max: int = 256 * 1024 * 1024
    rows_max: int = 1_000_000
    columns_max: int = 1024
    conditions_max: int = 16


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Many rows or files through one model."""

    rows_per_job: int = 256
    bytes_per_job: int = 8 * 1024 * 1024
    rows_per_job_max: int = 4096
    jobs_at_once: int = 8
    attempts_max: int = 3
    items_max: int = 10_000_000
    files_max: int = 1_000_000
    file_bytes_max: int = 32 * 1024 * 1024
    alone_files: int = 16


@dataclass(frozen=True, slots=True)
class TransformLimits:
    """Declared pre- and post-processing, and the bytes that go into it (docs/transforms.md)."""

    constant_bytes_max: int = 4 * 1024 * 1024
    items_max: int = 4096
    text_bytes_max: int = 1024 * 1024
    tokens_max: int = 1024 * 1024
    tokenizer_bytes_max: int = 32 * 1024 * 1024
    image_pixels_max: int = 40_000_000
    image_side_max: int = 32_768
    audio_samples_max: int = 64 * 1024 * 1024
    value_bytes_max: int = 512 * 1024 * 1024
    scan_steps_max: int = 100_000


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """Links, gossip and discovery."""

    ping_interval_seconds: float = 1.0
    ping_wait_seconds: float = 2.0
    ping_wait_busy_seconds: float = 3.0
    ping_busy_rtt_seconds: float = 0.2
    ping_again_seconds: float = 0.05
    peers_max: int = 256
    gossip_message_bytes_max: int = 1024
    frames_per_checkpoint_max: int = 4
    dials_at_once_max: int = 8
    dials_per_round_max: int = 32
    redial_seconds_min: float = 0.2
    redial_seconds_max: float = 10.0
    link_outgoing_bytes_max: int = 64 * 1024 * 1024
    adverts_max: int = 2048
    peer_cache_entries_max: int = 512
    manifests_per_advert_max: int = 256
    blob_grants_max: int = 4096
    blob_fetches_max: int = 8
    blob_fetches_per_peer: int = 2
    heartbeat_age_ms_max: int = 600_000
    gossip_late_ms_max: int = 30_000
    gossip_authors_max: int = 4096
    manifests_heard_bytes_max: int = 16 * 1024 * 1024
    manifest_share_bytes_min: int = 4 * 1024
    introduction_bytes_max: int = 1024 * 1024
    notices_per_introduction_max: int = 128
    model_permits_max: int = 4096
    model_permit_seconds: float = 600.0
    model_permit_givers_max: int = 8
    lease_shown_ms_max: int = 600_000
    model_holders_asked_max: int = 8
    model_file_seconds_max: float = 45.0  # of a small file, as a tokenizer is, from whoever has it
    model_file_peer_seconds_max: float = 15.0
    model_fetches_max: int = 2
    model_fetch_seconds_max: float = 3600.0
    model_for_others_seconds: float = 3600.0
    models_for_others_max: int = 128
    models_begun_max: int = 256
    notices_heard_bytes_max: int = 8 * 1024 * 1024
    notice_share_bytes_min: int = 512
    notices_kept_max: int = 4096
    grants_per_frame_max: int = 4
    introduction_seconds_min: float = 1.0
    foreign_jobs_per_peer: int = 64
    foreign_jobs_max: int = 4096
    foreign_streams_per_job: int = 4
    foreign_streams_per_peer: int = 320  # all that wait for its open jobs, and as many others as it may have jobs
    foreign_streams_max: int = 16_384
    foreign_requests_read_per_peer: int = 2
    foreign_bytes_max: int = 128 * 1024 * 1024
    foreign_reading_bytes_max: int = 32 * 1024 * 1024  # of them, for requests that are not open jobs yet
    foreign_receipts_bytes_max: int = 256 * 1024 * 1024
    foreign_receipts_remembered_max: int = 4096
    foreign_receipt_seconds_min: float = 10.0  # from one making of a long receipt to the next
    foreign_peer_share_permille: int = 125
    foreign_group_share_permille: int = 250
    foreign_kept_permille: tuple[int, int, int] = (0, 250, 500)  # of all bytes, by how much there is against a peer
    blob_seconds_max: float = 60.0
    small_file_bytes_max: int = 16 * 1024 * 1024
    small_file_reads_max: int = 2
    peer_cache_addresses_max: int = 4
    peer_cache_address_bytes_max: int = 256
    peer_cache_days_max: int = 30
    peer_cache_file_bytes_max: int = 1024 * 1024
    redial_failed_seconds: float = 5.0
    redial_lost_seconds: float = 0.5
    redial_lost_brisk_seconds: float = 60.0
    redial_lost_seconds_max: float = 600.0
    redial_lost_wait_seconds: float = 1.5
    redials_at_once_max: int = 32
    clock_samples_max: int = 8
    clock_skew_ms_max: int = 2000
    blocked_entries_max: int = 4096
    block_reason_characters_max: int = 200
    blocklist_file_bytes_max: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class JobLimits:
    """The engine and the loop."""

    batch_events_max: int = 16
    loop_hold_seconds_max: float = 0.001
    lease_ttl_ms: int = 30_000
    lease_seconds_max: float = 150.0  # the task timeout and one time to live; a node takes its own task timeout
    lease_window_per_peer: int = 64
    accepted_after_ms: int = 5
    accepted_again_ms_min: int = 100
    accepted_again_per_second_max: int = 100
    task_attempts_max: int = 8
    tasks_per_job_max: int = 64
    open_jobs_max: int = 16_384
    open_jobs_per_client: int = 256
    inbox_events_max: int = 1024
    answer_keep_seconds: float = 24 * 3600.0
    deadline_ms_default: int = 120_000
    deadline_ms_max: int = 24 * 3600 * 1000
    inline_bytes_max: int = 1024 * 1024
    done_jobs_remembered_max: int = 4096
    job_events_remembered_max: int = 256
    retry_after_ms_max: int = 5_000
    retry_after_ms_min: int = 250
    failures_per_task_max: int = 2
    clients_per_job_max: int = 64
    works_per_owner_max: int = 256
    works_max: int = 4096
    late_leases_remembered_max: int = 4096
    abandoned_leases_listed_max: int = 256
    restart_patience_seconds: float = 10.0
    decision_wait_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """Journal and blobs."""

    lazy_commit_seconds_max: float = 1.0
    lazy_rows_max: int = 512
    wal_checkpoint_pages: int = 4000
    stop_seconds_max: float = 1.0
    free_bytes_min: int = 1024**3
    commit_times_kept: int = 500
    free_look_seconds: float = 2.0
    read_in_loop_bytes_max: int = 512 * 1024
    read_piece_bytes: int = 512 * 1024
    long_reads_at_once_max: int = 2
    prune_look_seconds: float = 60.0
    prune_to_permille: int = 900
    prune_blobs_per_commit: int = 256
    prune_bytes_per_commit: int = 16 * 1024 * 1024
    blob_bytes_max: int = 256 * 1024**3
    blob_pins_max: int = 65_536
    blob_pin_reason_characters_max: int = 200
    blob_parts_open_max: int = 64
    blobs_damaged_told_max: int = 64
    blob_part_kept_seconds: float = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class StandingLimits:
    """What this node thinks of its peers (records.md, Standing)."""

    bar_seconds: float = 7 * 86400.0
    half_life_good_seconds: float = 7 * 86400.0
    half_life_bad_seconds: float = 30 * 86400.0
    recent_events: int = 20
    established_events_min: int = 10
    newcomer_share_permille: int = 100
    events_kept_max: int = 100_000
    established_peers_min: int = 3
    prior_alpha_permille: int = 1000
    prior_beta_permille: int = 2000
    event_weight_permille_max: int = 100_000


@dataclass(frozen=True, slots=True)
class ConsensusLimits:
    """Votes, sums, averages and replicas that are put together."""

    parts_max: int = 64
    vote_rows_max: int = 4096
    vote_classes_max: int = 1024
    tally_cells_max: int = 1_048_576
    weight_permille_max: int = 1_000_000
    average_weight_sum_max: int = 2**53
    quorum_replicas_max: int = 7
    compared_items_max: int = 65_536
    summed_items_max: int = 65_536
    averaged_at_once_items: int = 1_048_576
    tolerance_micro_max: int = 1_000_000_000


@dataclass(frozen=True, slots=True)
class CabinetLimits:
    """Policies of data owners."""

    min_cohort_default: int = 10
    rows_max: int = 10_000_000
    queries_per_day_default: int = 100
    queries_per_day_max: int = 1_000_000
    purpose_chars_max: int = 256
    row_sets_kept_max: int = 10_000
    where_columns_max: int = 64
    column_chars_max: int = 64


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """The people's doors."""

    clients_waiting_max: int = 128
    silence_seconds_max: float = 4.0  # after which a client asks whether its node is still there
    probe_seconds_max: float = 6.0
    accept_again_seconds: float = 0.2
    request_bytes_max: int = 72 * 1024 * 1024
    request_id_length_max: int = 64
    client_unread_bytes_max: int = 128 * 1024 * 1024
    inline_rows_max: int = 4096
    listed_cells_max: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The HTTP door."""

    connections_max: int = 1024
    connections_per_address_max: int = 512
    requests_at_once_max: int = 512
    requests_per_key_max: int = 128
    sockets_max: int = 512
    sockets_per_key_max: int = 128
    json_bytes_max: int = 16 * 1024 * 1024
    json_values_max: int = 500_000
    input_in_loop_bytes_max: int = 256 * 1024
    output_in_loop_bytes_max: int = 64 * 1024
    bodies_bytes_max: int = 512 * 1024 * 1024
    bodies_bytes_per_key_max: int = 192 * 1024 * 1024
    upload_bytes_max: int = 8 * 1024**3
    upload_chunk_bytes: int = 1024 * 1024
    uploads_bytes_max: int = 16 * 1024**3
    uploads_bytes_per_key_max: int = 8 * 1024**3
    upload_kept_seconds: float = 24 * 3600.0
    uploads_look_seconds: float = 600.0
    uploads_at_once_max: int = 16
    uploads_per_key_at_once_max: int = 4
    upload_least_bytes: int = 64 * 1024
    body_seconds_max: float = 300.0
    linger_seconds_max: float = 1.0
    linger_bytes_max: int = 16 * 1024 * 1024
    header_bytes_max: int = 16 * 1024
    keep_alive_seconds_max: float = 15.0
    write_seconds_max: float = 20.0
    accept_again_seconds: float = 0.2
    requests_per_connection_max: int = 10_000
    stop_seconds_max: float = 0.5
    socket_message_bytes_max: int = 64 * 1024
    callers_remembered_max: int = 4096
    notes_before_checkpoint: int = 500
    burst_seconds: float = 10.0
    requests_per_minute: int = 6000
    wrong_keys_per_minute: int = 60
    open_jobs_per_key: int = 64
    wait_seconds_max: float = 60.0
    events_per_page: int = 256
    jobs_per_page_max: int = 200
    values_max: int = 100_000
    embedding_tokens_max: int = 100_000
    embedding_padded_tokens_max: int = 400_000
    embedding_letters_max: int = 1_000_000
    keep_alive_comment_seconds: float = 15.0
    tls_handshake_seconds_max: float = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """All sections; pass the section a room needs, not the whole."""

    records: RecordLimits = field(default_factory=RecordLimits)
    wire: WireLimits = field(default_factory=WireLimits)
    exec: ExecLimits = field(default_factory=ExecLimits)
    transforms: TransformLimits = field(default_factory=TransformLimits)
    verify: VerifyLimits = field(default_factory=VerifyLimits)
    batch: BatchLimits = field(default_factory=BatchLimits)
    host: HostLimits = field(default_factory=HostLimits)
    peers: PeerLimits = field(default_factory=PeerLimits)
    conduct: ConductLimits = field(default_factory=ConductLimits)
    exchange: ExchangeLimits = field(default_factory=ExchangeLimits)
    bitswap: BitswapLimits = field(default_factory=BitswapLimits)
    index: IndexLimits = field(default_factory=IndexLimits)
    jobs: JobLimits = field(default_factory=JobLimits)
    store: StoreLimits = field(default_factory=StoreLimits)
    standing: StandingLimits = field(default_factory=StandingLimits)
    api: ApiLimits = field(default_factory=ApiLimits)
    http: HttpLimits = field(default_factory=HttpLimits)
    consensus: ConsensusLimits = field(default_factory=ConsensusLimits)
    cabinets: CabinetLimits = field(default_factory=CabinetLimits)
    swarm: SwarmLimits = field(default_factory=SwarmLimits)
    reach: ReachLimits = field(default_factory=ReachLimits)
    kubo: KuboLimits = field(default_factory=KuboLimits)


LIMITS = Limits()
