/**
 * dimr.js: receipts of dimnode checked, and jobs submitted, from JavaScript. Browsers and Node alike.
 *
 * Written from docs/receipt.md and docs/protocol.md alone, so that it shows whether those pages suffice. Rule: bytes are
 * judged before they are believed; nothing is repaired, and what cannot be checked is said to be unchecked.
 *
 * verify(bytes)                   the coded checks of a receipt, with the outcomes and the status of `dim verify`
 * Identity, compose, seal, open   records: made, signed, read
 * encodeTensors, decodeTensors    tensors/1
 * Peer                            a member of the swarm over js-libp2p: joins, submits jobs, verifies what comes back
 *
 * Integers are numbers where a number holds them exactly and BigInt beyond (and in int64 tensors always).
 */
import { decode, encode } from '@msgpack/msgpack'
import { ed25519 } from '@noble/curves/ed25519.js'
import { sha256, sha512 } from '@noble/hashes/sha2.js'

// ---- bytes and names (receipt.md, section 2)

const utf8 = new TextEncoder()
const strictText = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const RECORD_PREFIX = fromHex('0181041220')
const BLOB_PREFIX = fromHex('01551220')
const TREE_PREFIX = fromHex('01701220')
const PEER_PREFIX = fromHex('002408011220')
const MAGIC = utf8.encode('DIMR1\n')
const REF_DOMAIN = utf8.encode('dim-hash-ref/1')
const INT64_MIN = -(2n ** 63n)
const UINT64_MAX = 2n ** 64n - 1n
const INT64_MAX = 2n ** 63n - 1n

export const LIMITS = Object.freeze({
  fileBytes: 64 * 1024 * 1024,
  envelopes: 4096,
  envelopeBytes: 65_696,
  payloadBytes: 65_536,
  depth: 8,
  entries: 512,
  items: 4096,
  tensorBytes: 64 * 1024 * 1024,
  tensors: 64,
  dimensions: 8,
  sums: 65_536,
  frameBytes: 2 * 1024 * 1024
})

/** Something is not as the format demands. `code` is the check that it fails. */
export class Damage extends Error {
  constructor(code, why) {
    super(why)
    this.code = code
  }
}

export function fromHex(text) {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16))
}

export function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

export function concat(...parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0))
  let place = 0
  for (const part of parts) {
    whole.set(part, place)
    place += part.length
  }
  return whole
}

/** Order of byte strings: negative, 0 or positive. */
export function compare(a, b) {
  const size = Math.min(a.length, b.length)
  for (let place = 0; place < size; place++) if (a[place] !== b[place]) return a[place] - b[place]
  return a.length - b.length
}

export const same = (a, b) => a.length === b.length && compare(a, b) === 0
const startsWith = (bytes, prefix) => bytes.length >= prefix.length && same(bytes.subarray(0, prefix.length), prefix)

export const recordId = (payload) => concat(RECORD_PREFIX, sha256(payload))
export const blobCid = (blob) => concat(BLOB_PREFIX, sha256(blob))
export const blindedRef = (salt, cid) => sha256(concat(REF_DOMAIN, salt, cid))
export const peerOfKey = (key) => concat(PEER_PREFIX, key)

/** Text of a record id or CID: multibase base32, lower case, no padding. */
export function cidText(cid) {
  let text = 'b'
  let bits = 0
  let value = 0
  for (const byte of cid) {
    value = (value << 8) | byte
    bits += 8
    while (bits >= 5) {
      text += 'abcdefghijklmnopqrstuvwxyz234567'[(value >> (bits - 5)) & 31]
      bits -= 5
    }
    value &= (1 << bits) - 1
  }
  return bits ? text + 'abcdefghijklmnopqrstuvwxyz234567'[(value << (5 - bits)) & 31] : text
}

/** Text of a peer id: base58btc. */
export function peerText(peer) {
  const letters = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'
  let number = BigInt('0x' + (toHex(peer) || '0'))
  let text = ''
  for (; number > 0n; number /= 58n) text = letters[Number(number % 58n)] + text
  for (let place = 0; place < peer.length && peer[place] === 0; place++) text = '1' + text
  return text
}

// ---- msgpack in its one encoding (receipt.md, sections 1 and 5)

const bad = (why) => new Damage('R-CANONICAL', why)
const tooMuch = (why) => new Damage('R-LIMITS', why)

/** Reads msgpack values and refuses every header that is not the shortest, floats, extensions and bad UTF-8. */
class Reader {
  constructor(bytes) {
    this.bytes = bytes
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.place = 0
    this.items = 0
  }

  take(size) {
    const start = this.place
    if (size > this.bytes.length - start) throw bad('cut short')
    this.place = start + size
    return start
  }

  /** An unsigned number of 1, 2, 4 or 8 bytes that would not have fitted `below`. */
  unsigned(size, below) {
    const at = this.take(size)
    const { view } = this
    if (size === 8) {
      const number = view.getBigUint64(at)
      if (number <= 0xffffffffn) throw bad('integer not in its shortest form')
      return small(number)
    }
    const number = size === 1 ? view.getUint8(at) : size === 2 ? view.getUint16(at) : view.getUint32(at)
    if (number < below) throw bad('not the shortest header')
    return number
  }

  negative(size) {
    const at = this.take(size)
    const { view } = this
    if (size === 8) {
      const number = view.getBigInt64(at)
      if (number >= -0x80000000n) throw bad('integer not in its shortest form')
      return small(number)
    }
    const number = size === 1 ? view.getInt8(at) : size === 2 ? view.getInt16(at) : view.getInt32(at)
    if (number >= { 1: -32, 2: -128, 4: -32768 }[size]) throw bad('integer not in its shortest form')
    return number
  }

  raw(size) {
    const at = this.take(size)
    return this.bytes.subarray(at, at + size)
  }

  text(size) {
    try {
      return strictText.decode(this.raw(size))
    } catch (error) {
      throw error instanceof Damage ? error : bad('text is no UTF-8')
    }
  }

  value(depth) {
    const first = this.bytes[this.take(1)]
    if (first < 0x80) return first
    if (first >= 0xe0) return first - 256
    if (first < 0x90) return this.map(first & 15, depth)
    if (first < 0xa0) return this.list(first & 15, depth)
    if (first < 0xc0) return this.text(first & 31)
    switch (first) {
      case 0xc0: return null
      case 0xc2: return false
      case 0xc3: return true
      case 0xc4: return this.raw(this.unsigned(1, 0))
      case 0xc5: return this.raw(this.unsigned(2, 0x100))
      case 0xc6: return this.raw(this.unsigned(4, 0x10000))
      case 0xcc: return this.unsigned(1, 0x80)
      case 0xcd: return this.unsigned(2, 0x100)
      case 0xce: return this.unsigned(4, 0x10000)
      case 0xcf: return this.unsigned(8)
      case 0xd0: return this.negative(1)
      case 0xd1: return this.negative(2)
      case 0xd2: return this.negative(4)
      case 0xd3: return this.negative(8)
      case 0xd9: return this.text(this.unsigned(1, 0x20))
      case 0xda: return this.text(this.unsigned(2, 0x100))
      case 0xdb: return this.text(this.unsigned(4, 0x10000))
      case 0xdc: return this.list(this.unsigned(2, 0x10), depth)
      case 0xdd: return this.list(this.unsigned(4, 0x10000), depth)
      case 0xde: return this.map(this.unsigned(2, 0x10), depth)
      case 0xdf: return this.map(this.unsigned(4, 0x10000), depth)
    }
    throw bad('a type that does not belong here')
  }

  count(size, depth) {
    if (depth > LIMITS.depth) throw tooMuch('too deep')
    if (size > LIMITS.entries) throw bad('too many entries')
    this.items += size
    if (this.items > LIMITS.items) throw tooMuch('too many entries in all')
  }

  list(size, depth) {
    this.count(size, depth)
    return Array.from({ length: size }, () => this.value(depth + 1))
  }

  map(size, depth) {
    this.count(size, depth)
    const found = Object.create(null)
    let before = ''
    for (let entry = 0; entry < size; entry++) {
      const key = this.value(depth + 1)
      if (typeof key !== 'string' || !/^[a-z0-9_]{1,24}$/.test(key) || key.endsWith('\n')) throw bad('key')
      if (key <= before) throw bad('keys twice or out of order')
      before = key
      found[key] = this.value(depth + 1)
    }
    return found
  }
}

const small = (number) =>
  number >= BigInt(Number.MIN_SAFE_INTEGER) && number <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(number) : number

/** The map of a cmp/1 payload. Throws `Damage`. */
export function decodePayload(payload) {
  if (payload.length > LIMITS.payloadBytes) throw tooMuch('payload too long')
  const reader = new Reader(payload)
  const value = reader.value(1)
  if (reader.place !== payload.length) throw bad('bytes after the map')
  if (!isMap(value)) throw bad('not a map')
  return value
}

/** A cmp/1 payload of a map. Throws `TypeError` for what cmp/1 does not hold, `Damage` beyond its bounds. */
export function encodePayload(map) {
  const payload = encode(plain(map), { sortKeys: true, useBigInt64: true })
  decodePayload(payload)
  return payload
}

/** What npm's msgpack writes in shortest form: BigInt beyond 32 bits, numbers below. */
function plain(value) {
  if (typeof value === 'bigint' || (typeof value === 'number' && Number.isSafeInteger(value))) {
    if (value > UINT64_MAX || value < INT64_MIN) throw new TypeError('an integer beyond 64 bits')
    return value > 0xffffffff || value < -0x80000000 ? BigInt(value) : Number(value)
  }
  if (typeof value === 'number' || value === undefined) throw new TypeError('cmp/1 has neither floats nor undefined')
  if (Array.isArray(value)) return value.map(plain)
  if (isMap(value)) return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, plain(entry)]))
  return value
}

const isMap = (value) =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array)

// ---- envelopes (receipt.md, section 3)

/** An Ed25519 key. `seed`: 32 secret bytes. */
export class Identity {
  constructor(seed) {
    this.seed = seed
    this.key = ed25519.getPublicKey(seed)
    this.peer = peerOfKey(this.key)
  }

  sign(message) {
    return ed25519.sign(message, this.seed)
  }
}

function varint(number) {
  const bytes = []
  for (; number > 127; number >>>= 7) bytes.push((number & 127) | 128)
  return Uint8Array.from([...bytes, number])
}

const typeOf = (kind, version) => concat(fromHex('8104'), utf8.encode(`/${kind}/${version}`))

function signedBytes(kind, version, payload) {
  return concat(...[utf8.encode(`dim-sig-${kind}/${version}`), typeOf(kind, version), payload].flatMap((part) => [varint(part.length), part]))
}

/** Envelope bytes of a payload. */
export function seal(identity, kind, payload, version = 1) {
  const type = typeOf(kind, version)
  const head = concat(fromHex('0a2408011220'), identity.key, fromHex('12'), varint(type.length), type)
  return concat(head, fromHex('1a'), varint(payload.length), payload, fromHex('2a40'), identity.sign(signedBytes(kind, version, payload)))
}

/** Payload of a record of `kind`: `body` with the fields that every record has. */
export function compose(kind, { net, by, atMs }, body, version = 1) {
  return encodePayload({ v: version, kind, net, by, at_ms: atMs, ...body })
}

/** Parts of an envelope, its signature checked; the payload not yet read. Throws `Damage`. */
function openEnvelope(bytes) {
  if (bytes.length > LIMITS.envelopeBytes) throw tooMuch('envelope too long')
  const parts = []
  let place = 0
  for (const tag of [0x0a, 0x12, 0x1a, 0x2a]) {
    if (bytes[place++] !== tag) throw bad('fields of the envelope')
    let size = 0
    let shift = 0
    for (;;) {
      const byte = bytes[place++]
      if (byte === undefined || shift > 21) throw bad('varint')
      size += (byte & 127) * 2 ** shift
      if (byte < 128) {
        if (byte === 0 && shift) throw bad('varint not minimal')
        break
      }
      shift += 7
    }
    if (size > bytes.length - place) throw bad('envelope cut short')
    parts.push(bytes.subarray(place, place + size))
    place += size
  }
  const [key, type, payload, signature] = parts
  if (place !== bytes.length) throw bad('bytes after the envelope')
  if (key.length !== 36 || signature.length !== 64) throw bad('key or signature')
  if (!startsWith(key, PEER_PREFIX.subarray(2))) throw new Damage('R-SIGNATURE', 'the key is not Ed25519')
  const [, kind, digit] = /^\x81\x04\/([a-z_]{1,16})\/([1-9])$/.exec(String.fromCharCode(...type.subarray(0, 40))) ?? []
  if (kind === undefined || type.length !== kind.length + 5) throw bad('payload type')
  const version = Number(digit)
  if (!signatureHolds(signature, signedBytes(kind, version, payload), key.subarray(4))) throw new Damage('R-SIGNATURE', 'signature')
  return { key: key.subarray(4), kind, version, payload }
}

/** Ed25519 as libsodium verifies it: S below the order, nothing of small order, [S]B - [k]A encodes to R. */
export function signatureHolds(signature, message, key) {
  const { Point } = ed25519
  const R = signature.subarray(0, 32)
  const S = littleEndian(signature.subarray(32))
  if (S >= Point.Fn.ORDER) return false
  try {
    const A = Point.fromBytes(key, false)
    if (A.isSmallOrder()) return false
    const k = littleEndian(sha512(concat(R, key, message))) % Point.Fn.ORDER
    const computed = Point.BASE.multiplyUnsafe(S).subtract(A.multiplyUnsafe(k))
    return same(computed.toBytes(), R) && !computed.isSmallOrder()
  } catch {
    return false // the key is no point
  }
}

function littleEndian(bytes) {
  return BigInt('0x' + toHex(Uint8Array.from(bytes).reverse()))
}

/**
 * The record of an envelope: checked in form, signature and schema. Throws `Damage`. A version of a kind that is not
 * known here is a kind of its own, `lease/2`, and is never interpreted.
 */
export function open(envelope) {
  const { key, kind, version, payload } = openEnvelope(envelope)
  const said = decodePayload(payload)
  const by = peerOfKey(key)
  if (said.kind !== kind || said.v !== version || !(said.by instanceof Uint8Array) || !same(said.by, by)) {
    throw new Damage('R-SIGNATURE', 'the payload contradicts its envelope')
  }
  const type = version === 1 ? kind : `${kind}/${version}`
  const known = Object.hasOwn(KINDS, type)
  if (known && !KINDS[type](said)) throw new Damage('R-SCHEMA', `fields of a ${kind}`)
  return { id: recordId(payload), kind: known ? kind : type, version, by, said, envelope }
}

// ---- schemas (receipt.md, section 4)

const int = (least = 0, most = INT64_MAX) => (value) =>
  (typeof value === 'number' || typeof value === 'bigint') && value >= least && value <= most
const text = (most, least = 0) => (value) => {
  if (typeof value !== 'string') return false
  const size = [...value].length
  return size >= least && size <= most
}
const oneOf = (...words) => (value) => words.includes(value)
const list = (check, most = 512, least = 0) => (value) =>
  Array.isArray(value) && value.length >= least && value.length <= most && value.every(check)
const row = (...checks) => (value) =>
  Array.isArray(value) && value.length === checks.length && checks.every((check, place) => check(value[place]))
const bytes = (size, prefix) => (value) =>
  value instanceof Uint8Array && value.length === size && (!prefix || startsWith(value, prefix))
const maybe = (check) => Object.assign((value) => check(value), { optional: true })
const map = (fields) => (value) =>
  isMap(value) &&
  Object.entries(fields).every(([key, check]) => (Object.hasOwn(value, key) ? check(value[key]) : check.optional === true)) &&
  Object.keys(value).every((key) => Object.hasOwn(fields, key) || key.startsWith('x_'))
const either = (...checks) => (value) => checks.some((check) => check(value))

const id = bytes(37, RECORD_PREFIX)
const peer = bytes(38, PEER_PREFIX)
const cid = bytes(36, BLOB_PREFIX)
const root = either(cid, bytes(36, TREE_PREFIX))
const ref = bytes(32)
const bool = (value) => typeof value === 'boolean'
const METHODS = ['first', 'quorum', 'sum_counts', 'federated_average', 'weighted_average', 'majority_vote', 'weighted_vote']
const runtime = { engine: text(64), version: text(64), os: text(32), arch: text(32), accelerator: text(64), isa: maybe(text(64)), dtype: maybe(text(32)), quantisation: maybe(text(32)), determinism: maybe(text(64)), batch: maybe(int()) }
const ports = list(row(text(128), text(16, 1), list(int(-1, 2 ** 31 - 1), 8)), 64)
const task = map({
  op: oneOf('infer', 'evaluate', 'statistics'), model: maybe(id), peer: maybe(peer), cabinet: maybe(text(128, 1)),
  take: maybe(list(row(text(128), int(0, 127), text(128), int(-1, 2 ** 31 - 1), int(-1, 2 ** 31 - 1)), 32)),
  where: maybe(list(row(text(128), oneOf('eq', 'ne', 'lt', 'le', 'gt', 'ge'), int(INT64_MIN)), 8)), purpose: maybe(text(256))
})
const price = (value) => map({ unit: oneOf('answer', 'row'), micro: int(), currency: text(16, 1) })(value) && /^[A-Za-z0-9-]+$/.test(value.currency)
const transform = (value) => isMap(value) && text(32, 1)(value.op)
const path = (value) => typeof value === 'string' && value.length <= 255 && value.split('/').length <= 8 &&
  value.split('/').every((part) => /^[A-Za-z0-9_](?:[A-Za-z0-9 ._+@=,()-]{0,126}[A-Za-z0-9_+@=,()-])?$/.test(part))
const files = (value) => list(row(path, oneOf('model', 'weights', 'config', 'tokenizer', 'labels', 'other'), root, int(1)), 64, 1)(value) && !clash(value.map(([name]) => name.toLowerCase()))
const paid = (check) => (value) => check(value) && (value.access === 'pay-per-use') === Object.hasOwn(value, 'price')

/** Whether a path is there twice, or is another's folder. */
function clash(paths) {
  return paths.some((one, place) => paths.some((other, at) => at !== place && (other === one || other.startsWith(`${one}/`))))
}

const kindOf = (fields, net = true) => {
  const common = { v: int(), kind: text(16), by: peer, at_ms: int(), ...(net ? { net: id } : {}) }
  return map({ ...common, ...fields })
}
const KINDS = {
  spec: kindOf({
    pattern: oneOf('chained', 'comparative', 'collaborative'), tasks: list(task, 64, 1), inputs: list(ref, 64),
    tier: oneOf('signed', 'quorum'), rule: map({ method: oneOf(...METHODS), weights_permille: maybe(list(int(0, 1_000_000), 64)) }),
    deadline_ms: int(1), priority: oneOf('low', 'normal', 'high'), visibility: oneOf('swarm', 'participants'), nonce: bytes(16),
    quorum: maybe(map({ n: int(1, 7), k: int(1, 7) })),
    comparator: maybe(map({ kind: oneOf('exact', 'argmax_atol', 'rtol', 'cosine'), tensor: maybe(text(128)), atol_micro: maybe(int()), rtol_micro: maybe(int()), min_ppm: maybe(int()) })),
    min_sites: maybe(int(1, 64)), label: maybe(text(128))
  }),
  lease: kindOf({ job: id, task: int(0, 1023), epoch: int(1, 1_000_000), executor: peer, ttl_ms: int(1), inputs: list(ref, 64) }),
  answer: kindOf({
    job: id, task: int(0, 1023), epoch: int(1), inputs: list(ref), outputs: list(ref), runtime: either(map({}), map(runtime)),
    timing: map({ run_us: int(), queue_us: int() }), usage: map({ cpu_us: int(), rss_bytes: int() }), sandbox: text(128),
    status: oneOf('ok', 'failed', 'timeout', 'crashed', 'memory'), parents: list(id), model: maybe(id), weight: maybe(int()),
    error: maybe(text(256)), code: maybe(text(32))
  }),
  policy: kindOf({
    cabinet: text(128, 1), operations: list(text(16), 8), min_cohort: int(1), output_classes: list(text(16), 8), queries_per_day: int(),
    submitters: maybe(list(peer)), models: maybe(list(id)), expires_ms: maybe(int()), purpose: maybe(text(256))
  }),
  ruling: kindOf({ job: id, task: int(0, 1023), epoch: int(1), cabinet: text(128, 1), allowed: bool, code: text(32), reason: text(256), parents: list(id) }),
  verdict: kindOf({
    job: id, status: oneOf('ok', 'failed', 'refused', 'cancelled', 'expired', 'split'), rule: oneOf(...METHODS),
    steps: list(map({ task: int(0, 127), supporters: list(id), dissent: list(id), accepted: maybe(id) }), 64), outputs: list(ref),
    checks: list(text(64), 32), unchecked: list(text(128), 32), parents: list(id), reason: maybe(text(256)), code: maybe(text(32)), abandoned: maybe(list(id))
  }),
  manifest: kindOf({
    name: text(128, 1), version: text(32, 1), format: oneOf('onnx'), files: list(row(text(128), cid, int(1)), 64, 1), inputs: ports, outputs: ports,
    labels: list(text(64), 256), licence: text(128), origin: oneOf('trained', 'rule', 'imported'), access: oneOf('public', 'private'), summary: maybe(text(512))
  }),
  'manifest/2': paid(kindOf({
    name: text(128, 1), version: text(32, 1), profile: oneOf('unixfs-v1-2025'), format: oneOf('onnx', 'torch', 'mlx', 'coreml'), files,
    inputs: ports, outputs: ports, labels: list(text(64), 256), licence: text(128), origin: oneOf('trained', 'rule', 'imported', 'converted', 'quantised'),
    access: oneOf('public', 'private', 'restricted', 'pay-per-use'), summary: maybe(text(512)), price: maybe(price), previous: maybe(id),
    lineage: maybe(list(row(text(32, 1), either(id, root)), 32)), parity: maybe(id), architecture: maybe(text(64, 1)), dtype: maybe(text(32, 1)),
    quantisation: maybe(text(32, 1)), memory_bytes: maybe(int(1)), pre: maybe(list(transform, 32)), post: maybe(list(transform, 32)), max_batch: maybe(int(1))
  })),
  grant: kindOf({
    peer, models: list(id, 64, 1), operations: list(oneOf('fetch', 'infer', 'evaluate'), 8, 1), expires_ms: maybe(int(1)), price: maybe(price), terms: maybe(text(256))
  }),
  withdraw: kindOf({ subject: id, reason: text(256), replacement: maybe(id) }),
  swarm: kindOf({ name: text(128, 1), admins: list(peer, 16), threshold: int(0, 16) }, false),
  advert: kindOf({
    models: list(id, 256), cabinets: list(map({ name: text(128), columns: list(text(64), 256), label: text(64), operations: list(text(16), 8), min_cohort: maybe(int()) }), 64),
    slots: int(0, 100_000), runtimes: list(text(32), 16), sandbox: text(128), agent: text(64), addresses: list(text(256), 16), jobs_per_second: maybe(int()), name: maybe(text(64))
  }),
  heartbeat: kindOf({ advert: id, free_slots: int(0, 100_000), load_permille: int(0, 100_000) }),
  event: kindOf({ jobs: maybe(list(row(id, text(16)), 16)), verdicts: maybe(list(id, 16)) })
}

// ---- tensors/1 (receipt.md, section 5)

const DTYPES = { float64: 8, float32: 4, float16: 2, int64: 8, int32: 4, int16: 2, int8: 1, uint8: 1, bool: 1 }
const isFloat = (dtype) => dtype.startsWith('float')

/** Tensors of a blob: [{name, dtype, shape, raw}]. Throws `Damage` (R-BLOB) unless it is the one encoding of them. */
export function decodeTensors(blob) {
  if (blob.length > LIMITS.tensorBytes) throw new Damage('R-BLOB', 'too large')
  try {
    const reader = new Reader(blob)
    const rows = reader.value(1)
    if (reader.place !== blob.length) throw bad('bytes after the end')
    const fits = list(row(text(128, 1), oneOf(...Object.keys(DTYPES)), list(int(0, 2 ** 31 - 1), LIMITS.dimensions), (raw) => raw instanceof Uint8Array), LIMITS.tensors, 1)
    if (!fits(rows)) throw bad('no rows of name, dtype, shape and numbers')
    let before = null
    return rows.map(([name, dtype, shape, raw]) => {
      const order = utf8.encode(name)
      if (before && compare(before, order) >= 0) throw bad('names twice or out of order')
      before = order
      if (BigInt(raw.length) !== shape.reduce((size, side) => size * BigInt(side), BigInt(DTYPES[dtype]))) throw bad('size and shape')
      return { name, dtype, shape, raw }
    })
  } catch (error) {
    throw error instanceof Damage ? new Damage('R-BLOB', `tensors: ${error.message}`) : error
  }
}

/** The blob of these tensors: [{name, dtype, shape, raw}], in any order. */
export function encodeTensors(tensors) {
  const sorted = tensors.map((tensor) => ({ ...tensor, order: utf8.encode(tensor.name) })).sort((a, b) => compare(a.order, b.order))
  const blob = encode(sorted.map(({ name, dtype, shape, raw }) => [name, dtype, [...shape], raw]))
  decodeTensors(blob)
  return blob
}

/** A tensor of numbers (BigInt for int64). */
export function tensor(name, dtype, shape, numbers) {
  const raw = new Uint8Array(numbers.length * DTYPES[dtype])
  const view = new DataView(raw.buffer)
  numbers.forEach((number, place) => WRITE[dtype](view, place, number))
  return { name, dtype, shape, raw }
}

/** The numbers of a tensor, flat, in C order: BigInt for int64, otherwise Number. */
export function numbersOf({ dtype, raw }) {
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength)
  return Array.from({ length: raw.length / DTYPES[dtype] }, (_, place) => READ[dtype](view, place))
}

const READ = {
  float64: (view, place) => view.getFloat64(place * 8, true),
  float32: (view, place) => view.getFloat32(place * 4, true),
  float16: (view, place) => fromHalf(view.getUint16(place * 2, true)),
  int64: (view, place) => view.getBigInt64(place * 8, true),
  int32: (view, place) => view.getInt32(place * 4, true),
  int16: (view, place) => view.getInt16(place * 2, true),
  int8: (view, place) => view.getInt8(place),
  uint8: (view, place) => view.getUint8(place),
  bool: (view, place) => view.getUint8(place)
}
const WRITE = {
  float64: (view, place, number) => view.setFloat64(place * 8, number, true),
  float32: (view, place, number) => view.setFloat32(place * 4, number, true),
  float16: (view, place, number) => view.setUint16(place * 2, toHalf(number), true),
  int64: (view, place, number) => view.setBigInt64(place * 8, BigInt(number), true),
  int32: (view, place, number) => view.setInt32(place * 4, number, true),
  int16: (view, place, number) => view.setInt16(place * 2, number, true),
  int8: (view, place, number) => view.setInt8(place, number),
  uint8: (view, place, number) => view.setUint8(place, number),
  bool: (view, place, number) => view.setUint8(place, number ? 1 : 0)
}

function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const fraction = bits & 1023
  if (exponent === 31) return fraction ? NaN : sign * Infinity
  return exponent ? sign * 2 ** (exponent - 25) * (1024 + fraction) : sign * 2 ** -24 * fraction
}

/** Rounded once, half to even, also to subnormals. */
function toHalf(number) {
  const sign = number < 0 || Object.is(number, -0) ? 0x8000 : 0
  const size = Math.abs(number)
  if (Number.isNaN(size)) return 0x7e00
  if (size >= 65520) return sign | 0x7c00
  const exponent = Math.max(-14, Math.floor(Math.log2(size || 1)) - (size < 2 ** Math.floor(Math.log2(size || 1)) ? 1 : 0))
  const steps = halfToEven(size / 2 ** (exponent - 10))
  return sign | (steps + ((exponent + 14) << 10))
}

function halfToEven(number) {
  const floor = Math.floor(number)
  const over = number - floor
  return over < 0.5 || (over === 0.5 && floor % 2 === 0) ? floor : floor + 1
}

// ---- the file (receipt.md, section 6)

/**
 * Sections of a file; every damaged place is reported to `note(code, subject, why)`. What could be read is returned.
 */
function readFile(raw, note) {
  const parts = { root: null, records: [], openings: [], blobs: [] }
  const named = new Set() // what blobs may be: named by openings and manifests before them
  if (raw.length > LIMITS.fileBytes) return note('R-LIMITS', 'file', 'larger than any receipt'), parts
  if (!startsWith(raw, MAGIC)) return note('R-CANONICAL', 'file', 'no DIMR1 file'), parts
  const body = raw.subarray(0, Math.max(0, raw.length - 32))
  if (!same(sha256(body), raw.subarray(body.length))) note('R-CHECKSUM', 'file', 'the last 32 bytes are not the SHA-256 of all before')
  parts.root = raw.subarray(6, 43)
  let place = 43
  let ended = false
  let number = 0
  let before = 0
  const counts = { 1: 0, 2: 0, 3: 0 }
  const strange = []
  let isSound = true
  while (place < body.length) {
    const type = body[place++]
    if (type === 0) {
      ended = true
      if (place !== body.length) note('R-CANONICAL', `section ${number + 1}`, 'bytes after the end')
      break
    }
    number += 1
    if (!(type in counts)) {
      note('R-CANONICAL', `section ${number}`, 'unknown type')
      ended = true
      break
    }
    counts[type] += 1
    const subject = `${['record', 'opening', 'blob'][type - 1]} ${counts[type]}`
    const size = place + 4 <= body.length ? new DataView(body.buffer, body.byteOffset + place).getUint32(0) : Infinity
    if (size > body.length - place - 4) {
      note('R-CANONICAL', subject, 'section cut short')
      isSound = false
      break
    }
    const content = body.subarray(place + 4, place + 4 + size)
    place += 4 + size
    if (type < before) parts.disorder = true
    before = type
    try {
      if (type === 1) {
        const record = open(content)
        parts.records.push({ ...record, number: counts[1] })
        if (record.kind === 'manifest') for (const file of record.said.files) named.add(toHex(file[record.version > 1 ? 2 : 1]))
      } else if (type === 2) {
        parts.openings.push(readOpening(content))
        named.add(toHex(content.subarray(64)))
      } else {
        const cid = blobCid(content)
        parts.blobs.push({ cid, blob: content })
        if (!named.has(toHex(cid))) strange.push(subject)
      }
    } catch (error) {
      if (!(error instanceof Damage)) throw error
      isSound = false
      note(error.code, subject, error.message)
    }
  }
  if (!ended) note('R-CANONICAL', 'file', 'no end')
  else if (isSound) for (const subject of strange) note('R-BLOB', subject, 'of nothing')
  return parts
}

function readOpening(content) {
  if (content.length !== 100) throw new Damage('R-OPENING', 'length')
  const [name, salt, to] = [content.subarray(0, 32), content.subarray(32, 64), content.subarray(64)]
  if (!startsWith(to, BLOB_PREFIX) || !same(blindedRef(salt, to), name)) throw new Damage('R-OPENING', 'does not open')
  return { ref: name, salt, cid: to }
}

const ascending = (entries) => entries.every((entry, place) => place === 0 || compare(entries[place - 1], entry) < 0)

/** Order, reachability and uniqueness: what only the parts together can have wrong. */
function checkOrder(parts, note) {
  const { records, openings, blobs } = parts
  if (!startsWith(parts.root, RECORD_PREFIX)) return note('R-CANONICAL', 'file', 'root')
  const byId = new Map(records.map((record) => [toHex(record.id), record]))
  if (records.length > LIMITS.envelopes) return note('R-LIMITS', 'file', 'too many records')
  if (byId.size !== records.length) return note('R-CANONICAL', 'file', 'a record twice')
  if (!byId.has(toHex(parts.root))) return note('R-PARENTS', 'file', 'the root is not there')
  if (parts.disorder || !ascending(openings.map((entry) => entry.ref)) || !ascending(blobs.map((entry) => entry.cid))) {
    return note('R-CANONICAL', 'file', 'order of sections')
  }
  const order = preorder(byId, toHex(parts.root))
  if (order.length !== records.length || order.some((record, place) => record !== records[place])) {
    return note('R-PARENTS', 'file', 'records out of order or unreachable')
  }
  const named = new Set(records.flatMap(({ kind, said }) => refsOf(kind, said)).map(toHex))
  if (openings.some((opening) => !named.has(toHex(opening.ref)))) note('R-OPENING', 'file', 'an opening of nothing')
}

function edgesOf({ kind, said }) {
  switch (kind) {
    case 'verdict': return [...said.parents, ...(said.abandoned ?? [])]
    case 'answer':
    case 'ruling': return said.parents
    case 'spec': return said.tasks.flatMap((task) => (task.model ? [task.model] : []))
  }
  return []
}

function preorder(byId, root) {
  const order = []
  const seen = new Set()
  const stack = [root]
  while (stack.length) {
    const key = stack.pop()
    const record = byId.get(key)
    if (seen.has(key) || !record) continue
    seen.add(key)
    order.push(record)
    stack.push(...edgesOf(record).map(toHex).reverse())
  }
  return order
}

function refsOf(kind, said) {
  if (kind === 'spec' || kind === 'lease') return said.inputs
  if (kind === 'answer') return [...said.inputs, ...said.outputs]
  return kind === 'verdict' ? said.outputs : []
}

// ---- the checks (receipt.md, section 7)

const SHOWN_NEVER = new Set(['R-COMMIT', 'R-PROOF'])
const RULES_OF = {
  comparative: ['majority_vote', 'weighted_vote'],
  collaborative: ['sum_counts', 'federated_average', 'weighted_average']
}

/**
 * Every check of a receipt. `blobs` are blobs that were left out of the file.
 * Returns {status, checks: [{code, subject, outcome, why}], root, records}; status 0 verified, 1 refuted, 3 incomplete.
 */
export function verify(raw, { blobs = [] } = {}) {
  const checks = []
  const note = (code, subject, why) => checks.push({ code, subject, outcome: 'fail', why })
  const parts = readFile(raw, note)
  if (!checks.length) checkOrder(parts, note)
  if (checks.length) {
    checks.push({ code: 'R-SPEC', subject: 'file', outcome: 'not-checked', why: 'the file is damaged: what its records say to each other was not looked at' })
    return { status: 1, checks, root: null, records: [] }
  }
  for (const code of ['R-LIMITS', 'R-CHECKSUM', 'R-CANONICAL', 'R-SIGNATURE', 'R-SCHEMA']) checks.push({ code, subject: 'file', outcome: 'pass', why: '' })
  const found = new Case(parts, blobs)
  found.judge()
  checks.push(...found.checks)
  const failed = checks.some((check) => check.outcome === 'fail')
  const open = checks.some((check) => check.outcome === 'not-checked' && !SHOWN_NEVER.has(check.code))
  return { status: failed ? 1 : open ? 3 : 0, checks, root: parts.records[0], records: parts.records }
}

/** What the records of one receipt say to each other. */
class Case {
  constructor({ records, openings, blobs }, outside) {
    this.checks = []
    this.records = records
    this.root = records[0]
    this.byId = new Map(records.map((record) => [toHex(record.id), record]))
    this.cidOf = new Map(openings.map((opening) => [toHex(opening.ref), toHex(opening.cid)]))
    this.blobs = new Map(blobs.map(({ cid, blob }) => [toHex(cid), blob]))
    for (const blob of outside) this.blobs.set(toHex(blobCid(blob)), blob)
  }

  record(name) {
    return this.byId.get(toHex(name))
  }

  of(kind) {
    return this.records.filter((record) => record.kind === kind)
  }

  /** One line: it passes when `problems` is empty, else fails for its first reason. */
  line(code, subject, problem) {
    this.checks.push({ code, subject, outcome: problem ? 'fail' : 'pass', why: problem || '' })
  }

  open(code, subject, why) {
    this.checks.push({ code, subject, outcome: 'not-checked', why })
  }

  judge() {
    const { root } = this
    const refused = root.kind === 'ruling' && root.said.allowed === false
    const rooted = root.kind === 'verdict' || refused
    this.line('R-ROOT', 'record 1', !rooted && 'neither a verdict nor a refusal')
    if (!rooted) return this.open('R-PROOF', 'file', 'logs are not in this version')
    this.line('R-NET', 'file', this.records.some(({ said }) => !(said.net instanceof Uint8Array) || !same(said.net, root.said.net ?? [])) && 'several swarms')
    if (root.kind === 'verdict') this.judgeVerdict()
    else this.line('R-RULING', 'record 1', this.rulingProblem(root))
    this.judgeBlobs()
    this.open('R-PROOF', 'file', 'logs are not in this version')
  }

  judgeVerdict() {
    const { root } = this
    const first = root.said.parents[0]
    const spec = first && this.record(first)
    const there = spec?.kind === 'spec' && same(spec.id, root.said.job)
    const problem = there ? specProblem(spec.said) : 'the first parent is no spec of this job'
    this.line('R-SPEC', 'spec', problem)
    if (problem) return
    this.spec = spec.said
    this.specId = spec.id
    this.replicas = this.spec.tier === 'quorum' ? 2 * this.spec.quorum.n : 1
    this.newest = new Map()
    for (const { said } of this.of('lease')) this.newest.set(said.task, Math.max(said.epoch, this.newest.get(said.task) ?? 0))
    this.counted = root.said.steps.flatMap((step) => [...step.supporters, ...step.dissent, ...(step.accepted ? [step.accepted] : [])]).map((name) => this.record(name)).filter((record) => record?.kind === 'answer')
    for (const lease of this.of('lease')) this.line('R-LEASE', `record ${lease.number}`, this.leaseProblem(lease))
    for (const answer of this.of('answer')) this.line('R-LEASE', `record ${answer.number}`, this.answerProblem(answer))
    for (const ruling of this.of('ruling')) this.line('R-RULING', `record ${ruling.number}`, this.rulingProblem(ruling))
    this.line('R-RULING', 'file', this.counted.some((answer) => !this.isPermitted(answer)) && 'a cabinet was opened without permission')
    this.line('R-EPOCH', 'file', this.epochProblem())
    this.judgeModels()
    this.line('R-PARENTS', 'file', this.parentsProblem())
    this.open('R-COMMIT', 'verdict', 'votes are not committed before they are revealed in this version')
    this.line('R-RULE', 'verdict', root.said.rule !== this.spec.rule.method && 'another rule than the spec names')
    this.line('R-OUTPUT', 'verdict', this.outputProblem())
    const steps = this.spec.pattern === 'chained' ? this.chainProblem() : this.parallelProblem()
    this.line('R-STEPS', 'verdict', steps)
    if (this.spec.pattern === 'chained') {
      if (!steps && this.spec.tier === 'quorum') root.said.steps.forEach((step) => this.judgeQuorum(step))
    } else if (root.said.status === 'ok' && !steps) {
      const least = this.spec.min_sites ?? this.spec.tasks.length
      this.line('R-SITES', 'verdict', this.counted.length < least && 'too few sites')
      this.judgeCombined()
    }
    this.judgeMetering()
  }

  /** One line for each answer that counts, of a model that has a price. */
  judgeMetering() {
    const counts = new Set(this.counted)
    const answers = this.goodOf(null).filter((answer) => counts.has(answer))
    answers.sort((a, b) => a.said.task - b.said.task || compare(a.id, b.id))
    for (const answer of answers) {
      const manifest = answer.said.model && this.record(answer.said.model)
      const price = manifest?.kind === 'manifest' && manifest.said.price
      if (!price) continue
      const subject = `record ${answer.number}`
      const units = price.unit === 'answer' ? 1 : answer.said.weight ?? 0
      const rows = price.unit === 'answer' ? new Set([1]) : this.rowsOf(answer)
      if (!units) this.line('R-METER', subject, 'the answer does not say for how many rows')
      else if (!rows) this.open('R-METER', subject, 'what its rows were counted from is not here')
      else this.line('R-METER', subject, !rows.has(units) && `it bills ${units} rows, and was given others`)
    }
  }

  /** How many rows an answer may be of, or null when nobody can say. */
  rowsOf(answer) {
    const evaluates = this.spec.tasks[this.stepOf(answer.said.task)].op === 'evaluate'
    const blobs = evaluates ? [this.outputOf(answer)] : answer.said.inputs.map((ref) => this.blobs.get(this.cidOf.get(toHex(ref))))
    if (blobs.some((blob) => !blob)) return null
    const found = new Set()
    try {
      for (const tensors of blobs.map(decodeTensors)) {
        if (evaluates) {
          const told = tensors.find(({ name, dtype, raw }) => name === 'rows' && dtype === 'int64' && raw.length === 8)
          if (told) found.add(Number(numbersOf(told)[0]))
          continue
        }
        const names = new Set(tensors.map(({ name }) => name))
        for (const { name, dtype, shape } of tensors) {
          if (names.has(`${name}.sizes`)) continue
          found.add(shape[0] ?? 1)
          if (dtype === 'uint8' && shape.length === 1) found.add(1)
        }
      }
    } catch (error) {
      if (!(error instanceof Damage)) throw error
      return null
    }
    return found
  }

  stepOf(task) {
    return Math.floor(task / this.replicas)
  }

  acceptedOf(step) {
    const entry = this.root.said.steps.find((entry) => entry.task === step)
    return entry?.accepted && this.record(entry.accepted)
  }

  /** The refs that a step reads; null stands for one that no accepted answer gives. */
  inputsOf(step) {
    const { inputs } = this.spec
    return sourcesOf(this.spec, step).map((source) => {
      if (source < inputs.length) return inputs[source]
      return this.acceptedOf(source - inputs.length)?.said.outputs?.[0] ?? null
    })
  }

  leaseProblem({ by, said }) {
    if (!same(by, this.root.by)) return 'not signed by the owner'
    if (!same(said.job, this.specId)) return 'of another job'
    if (said.task >= this.replicas * this.spec.tasks.length) return 'of no task of the job'
    const step = this.stepOf(said.task)
    const pinned = this.spec.tasks[step].peer
    if (pinned && !same(pinned, said.executor)) return 'for another peer than the spec names'
    const wanted = this.inputsOf(step)
    return sameRefs(wanted, said.inputs) ? '' : "not the step's inputs"
  }

  answerProblem({ by, said }) {
    const lease = said.parents[0] && this.record(said.parents[0])
    if (lease?.kind !== 'lease') return 'stands on no lease'
    if (!same(by, lease.said.executor)) return 'not by the executor of its lease'
    if (!sameWork(said, lease.said) || !sameRefs(lease.said.inputs, said.inputs)) return 'about something else than its lease'
    for (const name of said.parents.slice(1)) {
      const ruling = this.record(name)
      if (ruling?.kind !== 'ruling' || !ruling.said.allowed || !ruling.said.parents[0] || !same(ruling.said.parents[0], lease.id)) return 'a parent is no permission about its lease'
    }
    return ''
  }

  rulingProblem({ by, said }) {
    const [lease, policy, ...more] = said.parents.map((name) => this.record(name))
    if (lease?.kind !== 'lease' || more.length) return 'stands on no lease'
    if (!same(by, lease.said.executor) || !sameWork(said, lease.said)) return 'not by the executor of its lease, or about something else'
    if (said.parents.length === 1 && !said.allowed) return ''
    if (policy?.kind !== 'policy' || !same(policy.by, by) || policy.said.cabinet !== said.cabinet) return 'not under an own policy for this cabinet'
    return ''
  }

  isPermitted(answer) {
    const task = this.spec.tasks[this.stepOf(answer.said.task)]
    if (!task || task.cabinet === undefined) return true
    return answer.said.parents.slice(1).map((name) => this.record(name)).some((ruling) => ruling?.kind === 'ruling' && ruling.said.cabinet === task.cabinet)
  }

  epochProblem() {
    const seen = new Set()
    for (const { said } of this.of('lease')) {
      const key = `${said.task} ${said.epoch}`
      if (seen.has(key)) return 'two leases of one task and epoch'
      seen.add(key)
    }
    return this.counted.some(({ said }) => said.epoch < (this.newest.get(said.task) ?? 0)) ? 'an answer of an older lease counts' : ''
  }

  judgeModels() {
    const wrong = this.of('answer').find(({ said }) => {
      const task = this.spec.tasks[this.stepOf(said.task)]
      if (!task) return false
      const wanted = task.model
      return wanted ? !said.model || !same(wanted, said.model) : said.model !== undefined
    })
    const missing = this.spec.tasks.some((task) => task.model && this.record(task.model)?.kind !== 'manifest')
    if (missing) this.open('R-MODEL', 'spec', 'the manifest of a model is not here')
    this.line('R-MODEL', 'file', wrong && 'another model than its step names')
  }

  parentsProblem() {
    for (const { kind, said } of this.records) {
      if (['verdict', 'answer', 'ruling'].includes(kind) && said.parents.some((name) => !this.record(name))) return 'a parent is missing'
    }
    const { parents, abandoned = [] } = this.root.said
    if (new Set(parents.map(toHex)).size !== parents.length) return 'a parent twice'
    if (parents.slice(1).some((name) => !['answer', 'ruling'].includes(this.record(name).kind))) return 'a parent that is neither answer nor ruling'
    if (abandoned.some((name) => this.record(name)?.kind !== 'lease')) return 'abandoned, and no lease'
    const led = new Set(this.counted.map(({ said }) => toHex(said.parents[0] ?? [])))
    return abandoned.some((name) => led.has(toHex(name))) ? 'a lease is called abandoned whose answer counts' : ''
  }

  outputProblem() {
    const { status, outputs, parents, steps } = this.root.said
    if (status === 'refused' && !parents.some((name) => this.record(name)?.kind === 'ruling' && !this.record(name).said.allowed)) return 'no refusal among the parents'
    if (status !== 'ok') return outputs.length ? 'outputs without success' : ''
    if (this.spec.pattern !== 'chained') return outputs.length === 1 ? '' : 'not one output'
    const accepted = steps.length ? this.acceptedOf(steps.at(-1).task) : undefined
    return accepted?.kind === 'answer' && sameRefs(accepted.said.outputs, outputs) ? '' : "not the last step's output"
  }

  isGood(record) {
    const said = record?.said
    return record?.kind === 'answer' && said.status === 'ok' && said.outputs.length > 0 && said.epoch >= (this.newest.get(said.task) ?? 0)
  }

  goodOf(step) {
    return this.of('answer').filter((answer) => this.isGood(answer) && (step === null || this.stepOf(answer.said.task) === step))
  }

  chainProblem() {
    const { steps, status } = this.root.said
    const isQuorum = this.spec.tier === 'quorum'
    for (const [place, step] of steps.entries()) {
      if (step.task !== place || place >= this.spec.tasks.length) return 'steps out of order'
      const counted = [...step.supporters, ...step.dissent]
      const answers = counted.map((name) => this.record(name))
      if (!answers.every((answer) => this.isGood(answer) && this.stepOf(answer.said.task) === place)) return 'counts what is no good answer of the step'
      if (isTwice(answers.map(({ said }) => said.task)) || isTwice(counted.map(toHex))) return 'an answer counted twice, or two of one task'
      if (isQuorum) {
        if (new Set(answers.map(({ by }) => toHex(by))).size !== answers.length) return 'one peer behind two replicas'
        if (step.accepted && !step.supporters.some((name) => same(name, step.accepted))) return 'the accepted answer is none of its supporters'
        if (!step.accepted && (place !== steps.length - 1 || step.supporters.length)) return 'a split in the middle'
      } else if (!step.accepted || step.dissent.length || step.supporters.length !== 1 || !same(step.supporters[0], step.accepted)) return 'not one accepted answer'
    }
    const complete = steps.length === this.spec.tasks.length && steps.every((step) => step.accepted)
    return complete === (status === 'ok') ? '' : 'ok without every step, or every step without ok'
  }

  parallelProblem() {
    const { steps, status } = this.root.said
    if (status !== 'ok') return steps.length ? 'steps without success' : ''
    if (steps.length !== 1 || steps[0].task !== 0 || steps[0].accepted) return 'not one entry'
    const counted = [...steps[0].supporters, ...steps[0].dissent].map(toHex)
    const good = this.goodOf(null).map(({ id }) => toHex(id))
    if (new Set(counted).size !== counted.length || counted.length !== good.length || good.some((name) => !counted.includes(name))) return 'not every good answer once'
    const tasks = this.counted.map(({ said }) => said.task)
    if (isTwice(tasks) || tasks.some((task) => task >= this.spec.tasks.length)) return 'two answers of one task, or of none'
    if (this.spec.pattern === 'comparative') return ''
    if (steps[0].dissent.length) return 'dissent in a sum'
    return new Set(this.counted.map(({ by }) => toHex(by))).size === this.counted.length ? '' : 'one peer behind two sites'
  }

  /** The first output of an answer, or null when it is not here. */
  outputOf(answer) {
    return this.blobs.get(this.cidOf.get(toHex(answer.said.outputs[0]))) ?? null
  }

  judgeQuorum(step) {
    const subject = `step ${step.task}`
    const answers = this.goodOf(step.task)
    const outputs = answers.map((answer) => this.outputOf(answer))
    if (outputs.includes(null)) return this.open('R-TALLY', subject, 'outputs are not here')
    const comparator = this.spec.comparator ?? { kind: 'exact' }
    const compares = NEEDED_BY[comparator.kind].every((key) => comparator[key] !== undefined)
    if (!compares && !step.accepted) return this.open('R-TALLY', subject, 'the comparator compares nothing')
    const agrees = compares ? comparatorOf(comparator) : () => false
    const supports = answers.map((_, a) => answers.filter((_, b) => a === b || agrees(outputs[a], outputs[b])))
    const peers = (support) => new Set(support.map(({ by }) => toHex(by))).size
    let best = null
    answers.forEach((answer, place) => {
      const size = peers(supports[place])
      if (size >= this.spec.quorum.k && (!best || size > best.size || (size === best.size && compare(answer.id, best.answer.id) < 0))) best = { answer, size, support: supports[place] }
    })
    const dissent = best ? answers.filter((answer) => !best.support.includes(answer)) : answers
    const names = (list) => list.map((entry) => toHex(entry.id ?? entry)).sort().join()
    if (!best) this.line('R-TALLY', subject, (step.accepted || (step.dissent.length && names(step.dissent) !== names(dissent))) && 'there is no agreement')
    else this.line('R-TALLY', subject, (!step.accepted || !same(step.accepted, best.answer.id) || names(step.supporters) !== names(best.support) || names(step.dissent) !== names(dissent)) && 'the agreement is another')
  }

  judgeCombined() {
    const code = this.spec.pattern === 'comparative' ? 'R-TALLY' : 'R-AGGREGATE'
    const answers = this.counted
    const outputs = answers.map((answer) => this.outputOf(answer))
    const claimed = this.root.said.outputs.length === 1 && this.cidOf.get(toHex(this.root.said.outputs[0]))
    if (outputs.includes(null)) return this.open(code, 'verdict', 'outputs are not here')
    try {
      const parts = answers.map((answer, place) => ({ answer, tensors: decodeTensors(outputs[place]) }))
      const blob = code === 'R-TALLY' ? this.vote(parts) : this.aggregate(parts)
      this.line(code, 'verdict', claimed && toHex(blobCid(blob)) !== claimed && 'computed again it is another')
    } catch (error) {
      if (!(error instanceof Damage)) throw error
      this.line(code, 'verdict', error.message)
    }
  }

  weightOf({ said }) {
    if (this.spec.rule.method === 'federated_average') return said.weight ?? 0
    return this.spec.rule.weights_permille?.[said.task] ?? 1
  }

  vote(parts) {
    const ballots = parts.map(({ answer, tensors }) => {
      const label = tensors.find(({ name }) => name === 'label')
      if (!label || label.dtype !== 'int64' || label.shape.length !== 1) throw new Damage('R-TALLY', 'an answer without a label')
      return { answer, labels: numbersOf(label).map(Number), weight: this.weightOf(answer) }
    })
    if (!ballots.some(({ weight }) => weight > 0)) throw new Damage('R-TALLY', 'no weight')
    const rows = ballots[0].labels.length
    if (ballots.some(({ labels }) => labels.length !== rows || labels.some((label) => label < 0 || label >= 1024)) || rows > 4096) throw new Damage('R-TALLY', 'votes that do not fit together')
    const classes = 1 + Math.max(-1, ...ballots.flatMap(({ labels }) => labels))
    const votes = Array.from({ length: rows }, (_, row) => {
      const counts = new Array(classes).fill(0)
      for (const { labels, weight } of ballots) counts[labels[row]] += weight
      return counts
    })
    const winners = votes.map((counts) => counts.indexOf(Math.max(...counts)))
    const margins = votes.map((counts, row) => counts[winners[row]] - Math.max(0, ...counts.filter((_, label) => label !== winners[row])))
    const [step] = this.root.said.steps
    for (const { answer, labels } of ballots) {
      const dissents = labels.some((label, row) => label !== winners[row])
      if (dissents !== step.dissent.some((name) => same(name, answer.id))) throw new Damage('R-TALLY', 'dissent is another')
    }
    return encodeTensors([
      tensor('label', 'int64', [rows], winners), tensor('margin', 'int64', [rows], margins), tensor('votes', 'int64', [rows, classes], votes.flat())
    ])
  }

  aggregate(parts) {
    const shape = (tensors) => JSON.stringify(tensors.map(({ name, dtype, shape }) => [name, dtype, shape]))
    const [{ tensors: first }] = parts
    if (parts.some(({ tensors }) => shape(tensors) !== shape(first))) throw new Damage('R-AGGREGATE', 'contributions differ in form')
    const columns = first.map((_, place) => parts.map(({ tensors }) => numbersOf(tensors[place])))
    if (this.spec.rule.method === 'sum_counts') return encodeTensors(first.map((one, place) => this.sum(one, columns[place])))
    const order = parts.map((_, place) => place).sort((a, b) => compare(parts[a].answer.by, parts[b].answer.by))
    const weights = parts.map(({ answer }) => Number(this.weightOf(answer)))
    return encodeTensors(first.map((one, place) => average(one, order.map((part) => columns[place][part]), order.map((part) => weights[part]))))
  }

  sum({ name, dtype, shape }, columns) {
    if (dtype !== 'int64') throw new Damage('R-AGGREGATE', 'counts are int64')
    const sums = columns[0].map((_, item) => columns.reduce((sum, column) => sum + column[item], 0n))
    if (sums.some((sum) => sum > INT64_MAX || sum < INT64_MIN)) throw new Damage('R-AGGREGATE', 'a sum beyond int64')
    return tensor(name, dtype, shape, sums)
  }

  judgeBlobs() {
    const refs = this.records.flatMap(({ kind, said }) => refsOf(kind, said)).map(toHex)
    if (refs.every((name) => this.cidOf.has(name))) this.line('R-OPENING', 'file', '')
    else this.open('R-OPENING', 'file', 'redacted')
    const closed = refs.some((name) => !this.cidOf.has(name)) || [...this.cidOf.values()].some((cid) => !this.blobs.has(cid))
    if (closed) this.open('R-BLOB', 'file', 'redacted or left out')
    else this.line('R-BLOB', 'file', '')
  }
}

const isTwice = (names) => new Set(names).size !== names.length
const sameRefs = (a, b) => a.length === b.length && a.every((entry, place) => entry && same(entry, b[place]))
const sameWork = (a, b) => same(a.job, b.job) && a.task === b.task && a.epoch === b.epoch

/** What a step reads: sources in ascending order. */
function sourcesOf(spec, step) {
  const { take } = spec.tasks[step]
  if (take) return [...new Set(take.map((entry) => entry[1]))].sort((a, b) => a - b)
  if (step > 0 && spec.pattern === 'chained') return [spec.inputs.length + step - 1]
  return spec.inputs.map((_, place) => place)
}

function specProblem(spec) {
  const { pattern, tier, rule, quorum, tasks, inputs } = spec
  if ((tier === 'quorum') !== (quorum !== undefined)) return 'tier and quorum'
  if (tier === 'quorum' && pattern !== 'chained') return 'a quorum of a parallel job'
  const rules = pattern === 'chained' ? [tier === 'quorum' ? 'quorum' : 'first'] : RULES_OF[pattern]
  if (!rules.includes(rule.method)) return 'the rule does not fit the pattern'
  if (quorum && !(quorum.k >= 2 && quorum.k <= quorum.n && 2 * quorum.k > quorum.n)) return 'no majority'
  if (quorum && 2 * quorum.n * tasks.length > 64) return 'too many tasks'
  const weighted = rule.method.startsWith('weighted')
  if (weighted !== (rule.weights_permille !== undefined)) return 'weights'
  if (weighted && rule.weights_permille.length !== tasks.length) return 'weights'
  const readable = tasks.every((_, step) => sourcesOf(spec, step).every((source) => source < inputs.length + (pattern === 'chained' ? step : 0)))
  return readable ? '' : 'a step reads what does not exist'
}

/** Keys without which a comparator compares nothing. */
const NEEDED_BY = { exact: [], argmax_atol: ['tensor', 'atol_micro'], rtol: ['rtol_micro'], cosine: ['min_ppm'] }

/** Whether two outputs agree. What cannot be compared does not agree. */
function comparatorOf({ kind, tensor: ranked, atol_micro, rtol_micro, min_ppm }) {
  if (kind === 'exact') return same
  return (a, b) => {
    try {
      const [left, right] = [decodeTensors(a), decodeTensors(b)]
      if (kind === 'argmax_atol' && !left.some(({ name }) => name === ranked)) return false
      return left.length === right.length && left.every((one, place) => tensorsAgree(one, right[place]))
    } catch (error) {
      if (error instanceof Damage) return false
      throw error
    }
  }
  function tensorsAgree(one, other) {
    if (one.name !== other.name || one.dtype !== other.dtype || one.shape.join() !== other.shape.join()) return false
    if (!isFloat(one.dtype)) return same(one.raw, other.raw)
    const [x, y] = [numbersOf(one), numbersOf(other)]
    if (![...x, ...y].every(Number.isFinite)) return false
    if (kind === 'cosine') return cosine(x, y) >= Number(min_ppm) / 1e6
    if (kind === 'rtol') return x.every((number, item) => Math.abs(number - y[item]) <= (Number(rtol_micro) / 1e6) * Math.max(Math.abs(number), Math.abs(y[item])))
    if (!x.every((number, item) => Math.abs(number - y[item]) <= Number(atol_micro) / 1e6)) return false
    return one.name !== ranked || sameRanks(x, y, one.shape.at(-1) ?? 1)
  }
}

function sameRanks(x, y, columns) {
  const top = (numbers, start) => {
    let best = start
    for (let item = start; item < start + columns; item++) if (numbers[item] > numbers[best]) best = item
    return best
  }
  for (let start = 0; start < x.length; start += columns) if (top(x, start) !== top(y, start)) return false
  return true
}

function cosine(x, y) {
  const dot = (a, b) => a.reduce((sum, number, item) => sum + number * b[item], 0)
  const sizes = Math.sqrt(dot(x, x)) * Math.sqrt(dot(y, y))
  if (sizes === 0) return dot(x, x) === dot(y, y) ? 1 : 0 // nothing but zeros resembles itself
  return dot(x, y) / sizes
}

function average({ name, dtype, shape }, columns, weights) {
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  if (!(total > 0 && total <= 2 ** 53)) throw new Damage('R-AGGREGATE', 'weights')
  if (dtype === 'bool') throw new Damage('R-AGGREGATE', 'bool has no average')
  const exact = isFloat(dtype) ? Infinity : 2 ** 53
  if (columns.some((column) => column.some((item) => !Number.isFinite(Number(item)) || Math.abs(Number(item)) > exact))) throw new Damage('R-AGGREGATE', 'a number without an average')
  const numbers = columns[0].map((_, item) => {
    let sum = 0
    columns.forEach((column, part) => { sum += Number(column[item]) * weights[part] })
    if (!Number.isFinite(sum)) throw new Damage('R-AGGREGATE', 'a sum beyond float64')
    return isFloat(dtype) ? sum / total : halfToEven(sum / total)
  })
  return tensor(name, dtype, shape, numbers)
}

// ---- streams (protocol.md, Frames)

/** Protocol ids and topics that this module speaks. */
export const PROTOCOLS = Object.freeze({ task: '/dim/task/1', ping: '/dim/ping/1', info: '/dim/info/1', job: '/dim/job/1' })
export const TOPICS = Object.freeze({ heartbeat: 'dim.nodes.heartbeat', jobs: 'dim.jobs.updates', results: 'dim.results.ready' })
/** The swarm that everybody may join: its record id. */
export const OPEN_SWARM = fromHex('0181041220b2eb8cfe4e15a4e220b841b13863af71e151cc8af7d71a86851f415f1b4cb45b')
const END = new Uint8Array(4)
const AGENT = 'dimr.js/1'

/** The other side broke the protocol, or refused. `code` is its error code, if it gave one. */
export class PeerError extends Error {
  constructor(what, code = '', retryAfterMs = 0) {
    super(code ? `${code}: ${what}` : what)
    this.code = code
    this.retryAfterMs = retryAfterMs
  }
}

/** One frame: length and msgpack value. */
export function packFrame(value) {
  const body = encode(value, { useBigInt64: true })
  if (body.length > LIMITS.frameBytes) throw new PeerError(`a frame of ${body.length} bytes`)
  const head = new Uint8Array(4)
  new DataView(head.buffer).setUint32(0, body.length)
  return concat(head, body)
}

function unpackBody(body) {
  try {
    return decode(body, { useBigInt64: true, maxExtLength: 0, maxArrayLength: 4096, maxMapLength: 4096 })
  } catch (error) {
    throw new PeerError(`frame body: ${error.message}`)
  }
}

/** The bytes of a js-libp2p stream, as many at a time as are asked for. */
class Incoming {
  constructor(stream) {
    this.chunks = stream[Symbol.asyncIterator]()
    this.rest = []
    this.size = 0
  }

  /** Exactly `size` bytes, or null when the stream ended before them. */
  async take(size) {
    while (this.size < size) {
      const { done, value } = await this.chunks.next()
      if (done) return null
      this.rest.push(value.subarray())
      this.size += value.byteLength
    }
    const whole = this.rest.length === 1 ? this.rest[0] : concat(...this.rest)
    this.rest = [whole.subarray(size)]
    this.size -= size
    return whole.subarray(0, size)
  }

  /** The value of the next frame, undefined at the end frame. Throws when the stream breaks off. */
  async frame() {
    const head = await this.take(4)
    const size = head && new DataView(head.buffer, head.byteOffset).getUint32(0)
    if (size === 0) return undefined
    if (size > LIMITS.frameBytes) throw new PeerError('frame too long')
    const body = size && (await this.take(size))
    if (!body) throw new PeerError('the stream broke off')
    return unpackBody(body)
  }
}

/** Write, and wait while the other side does not read. */
async function write(stream, ...parts) {
  for (const part of parts) {
    for (let start = 0; start < part.length; start += 65_536) {
      if (!stream.send(part.subarray(start, start + 65_536))) await stream.onDrain()
    }
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms))
const random = (size) => crypto.getRandomValues(new Uint8Array(size))

/**
 * A member of a swarm that executes nothing: it keeps links, says who it is, submits jobs and checks their receipts.
 * `libp2p` is a started js-libp2p node with TCP (or what else the others speak), Noise, Yamux and the key of `identity`;
 * with a gossipsub service named `pubsub` it sends heartbeats and hears those of others.
 */
export class Peer {
  constructor(libp2p, identity, { net = OPEN_SWARM, agent = AGENT, name = '' } = {}) {
    Object.assign(this, { libp2p, identity, net, agent, name })
    this.links = new Map()
    this.rtt = new Map()
    this.heard = new Map()
    this.stopped = false
    this.advert = this.seal('advert', {
      models: [], cabinets: [], slots: 0, runtimes: [], sandbox: '', agent, addresses: [], ...(name ? { name } : {})
    })
  }

  seal(kind, body) {
    const payload = compose(kind, { net: this.net, by: this.identity.peer, atMs: Date.now() }, body)
    return { id: recordId(payload), payload, envelope: seal(this.identity, kind, payload) }
  }

  /** Serve the protocols, link to every connection there is and will be, and dial `address` (a Multiaddr) if given. */
  async join(address) {
    const options = { maxInboundStreams: 64, maxOutboundStreams: 64 }
    const guarded = (serve) => (stream, connection) => serve.call(this, stream, connection).catch((error) => stream.abort(error))
    await this.libp2p.handle(PROTOCOLS.task, guarded(this.serveTask), options)
    await this.libp2p.handle(PROTOCOLS.ping, guarded(this.servePing), options)
    await this.libp2p.handle(PROTOCOLS.info, guarded(this.serveInfo), options)
    this.onOpen = (event) => this.link(event.detail)
    this.libp2p.addEventListener('connection:open', this.onOpen)
    this.libp2p.getConnections().forEach((connection) => this.link(connection))
    const { pubsub } = this.libp2p.services
    if (pubsub) {
      this.onMessage = ({ detail }) => this.hear(detail)
      pubsub.addEventListener('message', this.onMessage)
      Object.values(TOPICS).forEach((topic) => pubsub.subscribe(topic))
      this.beat()
    }
    return address ? this.libp2p.dial(address) : undefined
  }

  async leave() {
    this.stopped = true
    clearTimeout(this.beating)
    this.libp2p.removeEventListener('connection:open', this.onOpen)
    this.libp2p.services.pubsub?.removeEventListener('message', this.onMessage)
    await Promise.allSettled([...this.links.values()].map((stream) => write(stream, END)))
    await this.libp2p.unhandle([PROTOCOLS.task, PROTOCOLS.ping, PROTOCOLS.info])
  }

  // What others ask

  /** The smaller id opens both streams of a link; the larger one waits for them. */
  link(connection) {
    const theirs = connection.remotePeer.toMultihash().bytes
    if (compare(this.identity.peer, theirs) > 0) return
    this.openLink(connection).catch((error) => connection.abort(error))
  }

  async openLink(connection) {
    const task = await connection.newStream(PROTOCOLS.task)
    const ping = await connection.newStream(PROTOCOLS.ping)
    this.serveTask(task, connection).catch((error) => task.abort(error))
    const incoming = new Incoming(ping)
    const name = connection.remotePeer.toString()
    while (!this.stopped && ping.status === 'open') {
      const sent = performance.now()
      const message = new Uint8Array(32)
      const view = new DataView(message.buffer)
      view.setUint32(0, Math.min(0xffffffff, Math.round((this.rtt.get(name) ?? 0) * 1000)))
      view.setBigUint64(4, BigInt(Date.now()))
      await write(ping, message)
      if (!(await Promise.race([incoming.take(32), pause(2000)]))) throw new PeerError('no answer to a ping for 2 s')
      this.rtt.set(name, performance.now() - sent)
      await pause(1000)
    }
  }

  async serveTask(stream, connection) {
    const name = connection.remotePeer.toString()
    if (stream.direction === 'inbound' && compare(connection.remotePeer.toMultihash().bytes, this.identity.peer) > 0) {
      throw new PeerError('the smaller id opens the task stream')
    }
    stream.inactivityTimeout = 2 ** 31 - 1 // a link may be silent for days: its pings say that it lives
    this.links.set(name, stream)
    try {
      const incoming = new Incoming(stream)
      for (let frame; (frame = await incoming.frame()) !== undefined;) {
        if (!Array.isArray(frame) || frame.length < 10) throw new PeerError('task frame')
        const [word, ...key] = frame.slice(0, 4)
        const say = (...words) => write(stream, packFrame([words[0], ...key, [], [], [], words[1] ?? '', words[2] ?? '', 0]))
        if (word === 'lease') await say('refused', 'E-exec-04', 'this peer runs no models')
        else if (word === 'resume') await say('unknown')
        else if (word === 'cancel') await say('cancelled')
      }
    } finally {
      if (this.links.get(name) === stream) this.links.delete(name)
    }
  }

  async servePing(stream) {
    const incoming = new Incoming(stream)
    for (let message; (message = await incoming.take(32));) {
      const answer = message.slice()
      new DataView(answer.buffer).setBigUint64(12, BigInt(Date.now()))
      await write(stream, answer)
    }
  }

  async serveInfo(stream) {
    const asked = await new Incoming(stream).frame()
    if (typeof asked !== 'string') throw new PeerError('question')
    await write(stream, ...(asked === 'offers' || asked === 'advert' ? [packFrame(this.advert.envelope)] : []), END)
    await stream.close()
  }

  beat() {
    const { pubsub } = this.libp2p.services
    const { envelope } = this.seal('heartbeat', { advert: this.advert.id, free_slots: 0, load_permille: 0 })
    Promise.resolve(pubsub.publish(TOPICS.heartbeat, envelope)).catch(() => {}) // nobody listens yet
    const seconds = Math.min(30, Math.max(1, (this.heard.size + 1) / 5))
    if (!this.stopped) this.beating = setTimeout(() => this.beat(), seconds * 1000)
  }

  /** Keep the newest heartbeat of each peer; what does not hold, or is another's, is passed over. */
  hear({ topic, from, data }) {
    if (topic !== TOPICS.heartbeat || data.length > 1024) return
    try {
      const record = open(data)
      const author = peerText(record.by)
      const before = this.heard.get(author)
      if (record.kind !== 'heartbeat' || !same(record.said.net, this.net) || String(from) !== author) return
      if (!before || record.said.at_ms > before.at_ms) this.heard.set(author, record.said)
    } catch (error) {
      if (!(error instanceof Damage)) throw error
    }
  }

  // What this peer asks

  async ask(peer, protocol, question) {
    const connection = this.libp2p.getConnections().find(({ remotePeer, status }) => remotePeer.toString() === peer && status === 'open')
    if (!connection) throw new PeerError(`not connected to ${peer}`)
    const stream = await connection.newStream(protocol)
    stream.inactivityTimeout = 2 ** 31 - 1 // a job may take hours
    await write(stream, packFrame(question))
    return { stream, incoming: new Incoming(stream) }
  }

  /** What a connected peer (by its text id) says of itself: {advert, manifests}, each opened record checked. */
  async introduction(peer) {
    const records = []
    for (const word of ['offers', 'advert']) { // who does not know the first word says nothing
      const { stream, incoming } = await this.ask(peer, PROTOCOLS.info, word)
      try {
        for (let frame; (frame = await incoming.frame()) !== undefined;) {
          if (!(frame instanceof Uint8Array) || records.length > 384) throw new PeerError('introduction')
          records.push(open(frame))
        }
      } finally {
        stream.abort(new Error('done'))
      }
      if (records.length) break
    }
    const [advert, ...others] = records
    const manifests = others.filter(({ kind }) => Object.hasOwn(KINDS, kind) && kind !== 'grant' && kind !== 'withdraw')
    const offered = new Set((advert?.said.models ?? []).map(toHex))
    if (advert?.kind !== 'advert' || peerText(advert.by) !== peer || !same(advert.said.net, this.net)) throw new PeerError('no advert of this peer and swarm')
    if (manifests.some(({ kind, id }) => kind !== 'manifest' || !offered.has(toHex(id)))) throw new PeerError('a manifest that the advert does not name')
    return { advert, manifests }
  }

  /**
   * Have a connected peer own a job: `tasks` as in a spec, `inputs` tensors/1 blobs, `more` other fields of the spec.
   * `grants`: envelopes of the grants by which this peer may use the models. Returns {job, status, receipt, report, outputs}, the receipt checked: throws `PeerError` when it does not hold.
   */
  async submit(peer, tasks, inputs, more = {}, grants = []) {
    const openings = inputs.map((blob) => {
      const salt = random(32)
      const cid = blobCid(blob)
      return { ref: blindedRef(salt, cid), bytes: concat(blindedRef(salt, cid), salt, cid) }
    })
    const spec = this.seal('spec', {
      pattern: 'chained', tasks, inputs: openings.map((opening) => opening.ref), tier: 'signed', rule: { method: 'first' }, deadline_ms: 120_000,
      priority: 'normal', visibility: 'participants', nonce: random(16), ...more
    })
    const { stream, incoming } = await this.ask(peer, PROTOCOLS.job, [spec.envelope, openings.map((opening) => opening.bytes), inputs, grants])
    try {
      const answer = await incoming.frame()
      if (Array.isArray(answer) && answer[0] === 'refused') throw new PeerError(answer[2], answer[1], Number(answer[3]))
      if (!Array.isArray(answer) || answer[0] !== 'ended' || answer[2] > LIMITS.fileBytes) throw new PeerError('answer about a job')
      const chunks = []
      let size = 0
      for (let chunk; (chunk = await incoming.frame()) !== undefined; size += chunk.length) {
        if (!(chunk instanceof Uint8Array) || size + chunk.length > answer[2]) throw new PeerError('receipt')
        chunks.push(chunk)
      }
      if (size !== Number(answer[2])) throw new PeerError('the receipt is shorter than was said')
      return this.checked(decodePayload(spec.payload).nonce, answer[1], concat(...chunks))
    } finally {
      stream.abort(new Error('done'))
    }
  }

  /** The answer in a receipt about our job of this nonce; its spec may be an earlier one than the one just sent. */
  checked(nonce, status, receipt) {
    const report = verify(receipt)
    const said = report.root?.said
    if (report.status !== 0) throw new PeerError(`the receipt does not hold: ${report.checks.find((check) => check.outcome === 'fail')?.code ?? 'incomplete'}`)
    const spec = report.records.find(({ kind }) => kind === 'spec')
    const isOurs = spec && same(spec.by, this.identity.peer) && same(spec.said.nonce, nonce)
    if (report.root.kind !== 'verdict' || !isOurs || said.status !== status) throw new PeerError('the receipt is about something else')
    const parts = readFile(receipt, () => {})
    const blobOf = (name) => {
      const { cid } = parts.openings.find((opening) => same(opening.ref, name))
      return parts.blobs.find((blob) => same(blob.cid, cid)).blob
    }
    return { job: said.job, status, receipt, report, outputs: said.outputs.map(blobOf) }
  }
}
