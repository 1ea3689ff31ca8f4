/** Types of dimr.js. Integers are numbers where a number holds them exactly, BigInt beyond. */

export type Int = number | bigint
export type Value = null | boolean | Int | string | Uint8Array | Value[] | { [key: string]: Value }

export const LIMITS: Readonly<Record<
  'fileBytes' | 'envelopes' | 'envelopeBytes' | 'payloadBytes' | 'depth' | 'entries' | 'items' | 'tensorBytes' | 'tensors' | 'dimensions' | 'sums' | 'frameBytes',
  number
>>
export const PROTOCOLS: Readonly<Record<'task' | 'ping' | 'info' | 'job', string>>
export const TOPICS: Readonly<Record<'heartbeat' | 'jobs' | 'results', string>>
export const OPEN_SWARM: Uint8Array

/** Something is not as the format demands; `code` is the check that it fails (`R-…`). */
export class Damage extends Error {
  readonly code: string
  constructor(code: string, why: string)
}
/** The other side broke the protocol, or refused (then with its `code`). */
export class PeerError extends Error {
  readonly code: string
  readonly retryAfterMs: number
  constructor(what: string, code?: string, retryAfterMs?: number)
}

export function fromHex(text: string): Uint8Array
export function toHex(bytes: Uint8Array): string
export function concat(...parts: Uint8Array[]): Uint8Array
export function compare(a: Uint8Array, b: Uint8Array): number
export function same(a: Uint8Array, b: Uint8Array): boolean
export function recordId(payload: Uint8Array): Uint8Array
export function blobCid(blob: Uint8Array): Uint8Array
export function blindedRef(salt: Uint8Array, cid: Uint8Array): Uint8Array
export function peerOfKey(key: Uint8Array): Uint8Array
export function cidText(cid: Uint8Array): string
export function peerText(peer: Uint8Array): string

/** Throws `Damage` unless the bytes are the one encoding of a map. */
export function decodePayload(payload: Uint8Array): { [key: string]: Value }
export function encodePayload(map: { [key: string]: Value }): Uint8Array

export class Identity {
  readonly seed: Uint8Array
  readonly key: Uint8Array
  readonly peer: Uint8Array
  /** `seed`: 32 secret bytes. */
  constructor(seed: Uint8Array)
  sign(message: Uint8Array): Uint8Array
}
export interface SignedRecord {
  id: Uint8Array
  /** `lease/2` for a version that is not known here. */
  kind: string
  version: number
  by: Uint8Array
  said: { [key: string]: any }
  envelope: Uint8Array
}
export function signatureHolds(signature: Uint8Array, message: Uint8Array, key: Uint8Array): boolean
export function seal(identity: Identity, kind: string, payload: Uint8Array, version?: number): Uint8Array
export function compose(kind: string, common: { net: Uint8Array; by: Uint8Array; atMs: number }, body: { [key: string]: Value }, version?: number): Uint8Array
/** Throws `Damage` unless form, signature and schema hold. */
export function open(envelope: Uint8Array): SignedRecord

export type DType = 'float64' | 'float32' | 'float16' | 'int64' | 'int32' | 'int16' | 'int8' | 'uint8' | 'bool'
export interface Tensor {
  name: string
  dtype: DType
  shape: number[]
  raw: Uint8Array
}
export function decodeTensors(blob: Uint8Array): Tensor[]
export function encodeTensors(tensors: Tensor[]): Uint8Array
export function tensor(name: string, dtype: DType, shape: number[], numbers: Int[]): Tensor
/** Flat, in C order; BigInt for int64. */
export function numbersOf(tensor: Tensor): Int[]

export type Outcome = 'pass' | 'fail' | 'not-checked'
export interface Check {
  code: string
  subject: string
  outcome: Outcome
  why: string
}
export interface Report {
  /** 0 verified · 1 refuted · 3 authentic but incomplete */
  status: 0 | 1 | 3
  checks: Check[]
  /** null when the file is damaged */
  root: (SignedRecord & { number: number }) | null
  records: (SignedRecord & { number: number })[]
}
/** Never throws for bytes of any kind. `blobs`: what was left out of the file. */
export function verify(receipt: Uint8Array, options?: { blobs?: Uint8Array[] }): Report

export function packFrame(value: Value): Uint8Array

export interface Ended {
  job: Uint8Array
  status: string
  receipt: Uint8Array
  report: Report
  /** tensors/1 blobs */
  outputs: Uint8Array[]
}
/** A peer over a started js-libp2p node, whose key is that of `identity`. Peers are named by their text ids. */
export class Peer {
  readonly links: Map<string, unknown>
  /** Round trips in ms. */
  readonly rtt: Map<string, number>
  /** The newest heartbeat of each peer. */
  readonly heard: Map<string, { [key: string]: any }>
  constructor(libp2p: any, identity: Identity, options?: { net?: Uint8Array; agent?: string; name?: string })
  join(address?: any): Promise<any>
  leave(): Promise<void>
  introduction(peer: string): Promise<{ advert: SignedRecord; manifests: SignedRecord[] }>
  submit(peer: string, tasks: { [key: string]: Value }[], inputs: Uint8Array[], more?: { [key: string]: Value }, grants?: Uint8Array[]): Promise<Ended>
}
