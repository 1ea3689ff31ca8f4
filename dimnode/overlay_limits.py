"""The bounds of the overlay (host, conduct, private swarms, reach, blobs, IPFS), and of `dim verify` on many files.

A part of `limits.py`, whose rule holds here.
Rule: nobody imports this but `limits.py`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostLimits:
    """libp2p host, Noise session and Yamux muxer."""

    dial_seconds_max: float = 5.0
    negotiate_seconds_max: float = 5.0
    stream_window_bytes_max: int = 2 * 1024 * 1024
    near_window_bytes_max: int = 512 * 1024
    near_seconds: float = 0.002
    connection_unread_bytes_max: int = 16 * 1024 * 1024
    inbound_streams_max: int = 512
    inbound_streams_total_max: int = 4096
    keepalive_first_seconds: float = 1.0
    keepalive_seconds: float = 10.0
    keepalive_wait_seconds: float = 10.0
    close_seconds_max: float = 1.0
    linger_seconds_max: float = 60.0
    connections_max: int = 512
    open_files_wanted: int = 4096
    session_unsent_bytes_max: int = 256 * 1024
    frame_bytes_max: int = 16 * 1024 * 1024
    small_write_bytes_max: int = 16 * 1024
    small_writes_per_checkpoint: int = 32
    stream_id_gap_max: int = 1024
    address_ttl_seconds: int = 3600
    addresses_per_peer_max: int = 16
    known_peers_max: int = 1000
    gossip_heartbeat_seconds: int = 1
    gossip_degree: int = 6
    gossip_messages_per_second_max: float = 4.0
    gossip_messages_burst_max: int = 20
    gossip_sources_max: int = 1024
    gossip_rpc_bytes_max: int = 64 * 1024
    dial_stagger_seconds: float = 0.3
    dht_queries_max: int = 6
    dht_wait_seconds_max: float = 10.0
    dht_key_bytes_max: int = 128
    connections_per_source_max: int = 128
    connections_per_peer_max: int = 4
    accept_queue_max: int = 1024
    half_open_max: int = 1024
    half_open_per_source_max: int = 640
    unread_bytes_total_max: int = 128 * 1024 * 1024
    unread_share_bytes: int = 512 * 1024
    idle_frames_max: int = 1024
    refused_streams_per_offence: int = 256
    ended_streams_remembered_max: int = 256
    protocol_line_bytes_max: int = 1024
    proposals_per_stream_max: int = 16
    own_addresses_kept_seconds: float = 1.0
    service_streams_per_peer_max: int = 8
    service_reads_per_second_max: float = 600.0
    service_reads_burst_max: int = 3000
    gossip_total_per_second_max: float = 200.0
    gossip_total_burst_max: int = 1000
    gossip_forwarded_per_second_max: float = 60.0
    gossip_forwarded_burst_max: int = 300
    gossip_controls_max: int = 64
    dht_streams_max: int = 64
    dht_streams_per_peer_max: int = 4
    dht_answer_seconds_max: float = 5.0
    dht_answer_bytes_max: int = 128 * 1024
    dht_answer_peers_max: int = 20
    dht_keepers_max: int = 8
    dht_announcements_per_second_max: float = 1.0
    dht_announcements_burst_max: int = 256
    dht_tellers_min: int = 3
    dht_asking_streams_max: int = 3
    dht_kept_streams_max: int = 2
    dht_answers_per_question_max: int = 3
    dht_idle_seconds_max: float = 60.0
    dht_announced_key_bytes_max: int = 80
    dht_answer_addresses_max: int = 4
    dht_dials_per_answer_max: int = 8
    dht_dials_per_lookup_max: int = 24
    dht_failed_targets_max: int = 1024
    dht_failed_seconds: float = 60.0
    dht_admitted_peers_max: int = 1024
    dht_announcements_kept_max: int = 8192
    dht_announcements_per_peer_max: int = 512
    dht_providers_per_key_max: int = 32
    dht_provider_kept_seconds: float = 172_800.0
    dht_vouch_seconds_max: float = 1.0
    dht_value_bytes_max: int = 1024
    dht_values_max: int = 4096
    dht_values_per_peer_max: int = 32
    dht_value_kept_seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class ConductLimits:
    """How bad conduct is answered (p2p/conduct.py): points per offence, and what how many points lead to."""

    half_life_seconds: float = 60.0
    mute_points: float = 30.0
    disconnect_points: float = 60.0
    ban_points: float = 100.0
    ban_seconds: float = 60.0
    ban_seconds_max: float = 3600.0
    peers_max: int = 4096
    malformed: float = 10.0
    oversize: float = 15.0
    handler: float = 1.0
    slow: float = 2.0
    forged: float = 35.0
    invalid: float = 10.0
    replayed: float = 0.1  # also of who came later and knows nothing newer, when a clock was set back
    gossip_flood: float = 2.0
    low_score: float = 60.0
    muxer: float = 50.0
    window: float = 60.0
    stream_flood: float = 25.0
    unread: float = 2.0
    half_open: float = 1.0
    crowding: float = 2.0
    dht: float = 2.0
    blob: float = 35.0

    def weight(self, offence: str) -> float:
        """Points of an offence, by its name."""
        return float(getattr(self, offence))


@dataclass(frozen=True, slots=True)
class BitswapLimits:
    """IPFS peers that are no dimnodes (docs/content.md, decisions/0013-bitswap.md)."""

    peers_max: int = 32
    peers_per_group_max: int = 8
    idle_seconds_max: float = 60.0
    look_seconds: float = 5.0
    streams_per_peer_max: int = 4
    answering_streams_max: int = 16
    question_bytes_max: int = 256 * 1024
    message_bytes_max: int = 4 * 1024 * 1024
    message_seconds_max: float = 60.0
    block_bytes_max: int = 2 * 1024 * 1024
    answer_bytes: int = 1024 * 1024
    cid_bytes_max: int = 128
    entries_max: int = 4096
    entries_per_second_max: float = 2000.0
    wants_max: int = 1024
    blocks_indexed_max: int = 262_144
    index_again_seconds: float = 0.25
    blocks_asked_max: int = 16
    linger_seconds: float = 1.0
    link_seconds_max: float = 1.0
    silence_seconds_max: float = 15.0


@dataclass(frozen=True, slots=True)
class KuboLimits:
    """Calls to an operator's Kubo daemon (docs/kubo.md)."""

    calls_at_once_max: int = 4
    connect_seconds_max: float = 2.0
    stall_seconds_max: float = 15.0
    call_seconds_max: float = 20.0
    local_seconds_max: float = 3.0
    network_seconds_max: float = 12.0
    fetch_seconds_min: float = 30.0
    fetch_bytes_per_second_min: int = 2 * 1024 * 1024
    pin_seconds_max: float = 120.0
    publish_seconds_max: float = 120.0
    send_seconds_min: float = 60.0
    send_bytes_per_second_min: int = 2 * 1024 * 1024
    answer_bytes_max: int = 1536 * 1024
    add_leaves_max: int = 174  # the narrowest tree in use has this many links; a file of more leaves is drawn otherwise
    name_seconds_valid: int = 48 * 3600
    name_renew_seconds: float = 12 * 3600.0
    look_seconds_min: float = 15.0
    look_seconds_max: float = 120.0
    waiting_max: int = 1024
    pins_noted_max: int = 8192
    receipts_at_once: int = 64
    notes_bytes_max: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SwarmLimits:
    """Private swarms: admission, invites, removals, pre-shared keys (docs/swarms.md)."""

    admission_seconds_max: float = 3.0
    streams_before_admission_max: int = 16
    unread_before_admission_bytes_max: int = 64 * 1024
    admins_max: int = 16  # as many as a swarm record names (records/kinds.py)
    chain_envelopes_max: int = 2
    chain_bytes_max: int = 16 * 1024
    members_max: int = 1024
    members_per_peer_max: int = 4
    invites_max: int = 512
    removals_max: int = 512
    news_bytes_max: int = 2 * 1024 * 1024 - 64 * 1024
    announce_seconds_max: float = 5.0
    announce_at_once_max: int = 16
    farewell_seconds_max: float = 1.0
    clock_skew_ms_max: int = 300_000
    invite_ms_max: int = 366 * 86_400_000
    member_ms_max: int = 36_525 * 86_400_000
    invite_text_characters_max: int = 8192
    invite_addresses_max: int = 8
    key_overlap_ms: int = 7 * 86_400_000
    keys_max: int = 4
    state_bytes_max: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ReachLimits:
    """Relaying for others, being relayed, hole punching, dial-back, mDNS (docs/reachability.md)."""

    relay_reservations_max: int = 128
    relay_reservation_seconds: int = 3600
    relay_reservation_seconds_min: int = 120
    relay_circuits_max: int = 64
    relay_circuits_per_peer_max: int = 8
    relay_circuit_seconds_max: int = 3600
    relay_circuit_bytes_max: int = 1024**3
    relay_copy_bytes: int = 256 * 1024
    relays_used_max: int = 2
    relay_addresses_max: int = 4
    relay_candidates_max: int = 8
    relay_retry_seconds: float = 60.0
    relays_guessed_max: int = 3
    circuits_inbound_max: int = 64
    circuit_message_bytes_max: int = 4096
    circuit_quiet_bytes: int = 16 * 1024
    circuit_linger_seconds_min: float = 3.0
    circuit_linger_seconds_max: float = 60.0
    identify_bytes_max: int = 64 * 1024
    punch_rounds_max: int = 3
    punch_again_seconds_min: float = 15.0
    punch_again_seconds_max: float = 600.0
    punch_seconds_max: float = 4.0
    punch_addresses_max: int = 6
    punches_at_once_max: int = 16
    dialback_wait_seconds: float = 2.0
    dialback_ports_max: int = 2
    dialbacks_at_once_max: int = 8
    dialback_seconds_min: float = 5.0
    dialback_askers_remembered_max: int = 1024
    dialback_servers_max: int = 3
    visitors_remembered_max: int = 256
    look_seconds: float = 1.0
    check_seconds_min: float = 10.0
    check_seconds_max: float = 600.0
    mdns_peers_max: int = 256
    mdns_addresses_max: int = 8
    mdns_start_seconds_max: float = 10.0


@dataclass(frozen=True, slots=True)
class IndexLimits:
    """What a node publishes, named in the DHT, and the indexes of others (docs/content.md)."""

    manifests_max: int = 384
    withdrawals_max: int = 128
    valid_seconds: int = 1800
    renew_seconds: int = 600
    again_seconds: float = 15.0
    few_keepers_seconds: float = 300.0
    change_seconds_min: float = 2.0
    ttl_seconds: int = 60
    resolve_seconds_max: float = 15.0
    kept_max: int = 64
    fetches_at_once_max: int = 2
    walks_at_once_max: int = 4
    turn_seconds_min: float = 2.0
    heard_per_checkpoint: int = 32
    fetch_gap_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class VerifyLimits:
    """`dim verify` on a folder, or on more files than it reports on one by one."""

    reported_max: int = 16
    receipts_max: int = 250_000
    alone_bytes: int = 1024 * 1024
    piece_receipts: int = 64
    piece_bytes: int = 1024 * 1024
    pieces_waiting_per_core: int = 3
    told_max: int = 1000


@dataclass(frozen=True, slots=True)
class ExchangeLimits:
    """Large blobs between peers (docs/content.md)."""

    providers_max: int = 8
    substitutes_max: int = 64  # who wait to be called in
    requests_max: int = 12
    requests_first: int = 2
    requests_seconds: float = 0.25
    endgame_leaves_max: int = 4
    duplicates_max: int = 4
    leaves_waiting_max: int = 4  # of one fetch, between the wire and the disk, before no more are asked for
    keeper_linger_seconds: float = 0.5
    leaves_held_max: int = 20  # of one fetch, in memory: those that wait, and those that come; beyond `providers_max`
    head_start_seconds: float = 0.1  # of the first provider of a fetch
    enough_seconds: float = 0.2  # so long after leaves had to wait, or the loop was busy, nobody else is called in
    enough_loop_share: float = 0.7  # of its time that the loop is busy: more providers would bring nothing
    load_seconds: float = 0.05  # over which that is measured
    rest_seconds_first: float = 0.1  # of a provider that brings more than this node takes
    rest_seconds_max: float = 2.0
    silence_seconds_max: float = 15.0
    leaf_seconds_max: float = 60.0
    tree_seconds_max: float = 20.0  # of one provider, while the others wait
    look_again_seconds: float = 0.1
    have_again_seconds: float = 1.0
    questions_waiting_max: int = 16
    question_bytes_max: int = 256
    answer_bytes_max: int = 96 * 1024
    serving_per_peer_max: int = 4
    serving_max: int = 32
    serving_per_group_share: int = 8
    serving_kept_free: tuple[int, int, int] = (0, 4, 12)  # of `serving_max`, by how much there is against a peer
    idle_seconds_max: float = 30.0
    permission_seconds: float = 5.0
    fetches_max: int = 4
    fetches_waiting_max: int = 64
    find_seconds_max: float = 20.0
    find_again_seconds: float = 5.0
    liars_max: int = 4096
    liar_seconds: float = 3600.0
    announced_roots_max: int = 1024
    announce_again_seconds: float = 12 * 3600.0
    announcements_per_minute_max: float = 30.0
