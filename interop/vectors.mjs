/** The golden vectors against dimr.js: cmp/1, envelopes, tensors/1, ids, and signatures that libsodium refuses. */
import { readFileSync } from 'node:fs'
import * as dimr from './dimr.js'

const vectors = JSON.parse(readFileSync(new URL('../tests/golden/vectors.json', import.meta.url)))
const bytes = dimr.fromHex
let count = 0
const wrong = []
const check = (what, holds) => {
  count += 1
  let found = false
  try {
    found = holds()
  } catch (error) {
    what += ` (${error.message.slice(0, 80)})`
  }
  if (!found) wrong.push(what)
}
const refuses = (judge, input) => {
  try {
    judge(input)
  } catch (error) {
    return error instanceof dimr.Damage
  }
  return false
}

/** A value as the vectors write it. */
function valueOf(written) {
  if (Array.isArray(written)) return written.map(valueOf)
  if (written === null || typeof written !== 'object') return written
  if ('int' in written) return BigInt(written.int)
  if ('bin' in written) return bytes(written.bin)
  if ('list' in written) return written.list.map(valueOf)
  if ('map' in written) return Object.fromEntries(Object.entries(written.map).map(([key, entry]) => [key, valueOf(entry)]))
  throw new Error(`what is ${JSON.stringify(written)}?`)
}

for (const { value, hex } of vectors.cmp1_accepted) {
  check(`cmp/1 ${hex.slice(0, 40)}`, () => dimr.toHex(dimr.encodePayload(dimr.decodePayload(bytes(hex)))) === hex)
  check(`cmp/1 of ${JSON.stringify(value).slice(0, 60)}`, () => dimr.toHex(dimr.encodePayload(valueOf(value))) === hex)
}
for (const { hex, why } of vectors.cmp1_rejected) check(`cmp/1: ${why}`, () => refuses(dimr.decodePayload, bytes(hex)))

const { envelope } = vectors
const identity = new dimr.Identity(bytes(envelope.seed))
check('peer id', () => dimr.peerText(identity.peer) === envelope.peer)
check('envelope made', () => dimr.toHex(dimr.seal(identity, envelope.kind, bytes(envelope.payload))) === envelope.envelope)
check('envelope read', () => dimr.open(bytes(envelope.envelope)).kind === envelope.kind)
for (const [name, hex] of Object.entries(envelope.rejected ?? {})) check(`envelope: ${name}`, () => refuses(dimr.open, bytes(hex.hex ?? hex)))
for (let place = 0; place < envelope.envelope.length / 2; place++) {
  const changed = bytes(envelope.envelope)
  changed[place] ^= 1
  check(`envelope with byte ${place} changed`, () => refuses(dimr.open, changed))
}

for (const { hex, tensors } of vectors.tensors1.accepted) {
  check('tensors read', () => JSON.stringify(dimr.decodeTensors(bytes(hex)).map(({ name, dtype, shape, raw }) => [name, dtype, shape, dimr.toHex(raw)])) === JSON.stringify(tensors))
  check('tensors made', () => dimr.toHex(dimr.encodeTensors(dimr.decodeTensors(bytes(hex)).reverse())) === hex)
}
for (const { hex, why } of vectors.tensors1.rejected) check(`tensors: ${why}`, () => refuses(dimr.decodeTensors, bytes(hex)))

const models = JSON.parse(readFileSync(new URL('../tests/golden/models.json', import.meta.url)))
for (const { kind, version, id, envelope: hex } of models.accepted) {
  check(`${kind}/${version} read`, () => {
    const found = dimr.open(bytes(hex))
    return found.kind === kind && found.version === version && dimr.cidText(found.id) === id
  })
}
for (const { envelope: hex, why } of models.refused) check(`of a model: ${why}`, () => refuses(dimr.open, bytes(hex)))
check('a later version of a known kind', () => dimr.open(bytes(models.later.envelope)).kind === models.later.kind)

const { ids } = vectors
check('record id', () => dimr.cidText(dimr.recordId(bytes(ids.payload))) === ids.record_id_text)
check('blob CID', () => dimr.cidText(dimr.blobCid(bytes(ids.blob))) === ids.blob_cid_text)
check('ref', () => dimr.toHex(dimr.blindedRef(bytes(ids.salt), dimr.blobCid(bytes(ids.blob)))) === ids.ref)
check('the open swarm', () => dimr.cidText(dimr.OPEN_SWARM) === vectors.open_swarm.id)

// RFC 8032 leaves room that libsodium closes: small orders, S beyond the group order.
const message = new Uint8Array(3)
const signature = identity.sign(message)
const order = 2n ** 252n + 27742317777372353535851937790883648493n
const beyond = signature.slice()
let S = BigInt('0x' + dimr.toHex(signature.slice(32).reverse())) + order
for (let place = 32; place < 64; place++, S >>= 8n) beyond[place] = Number(S & 255n)
check('a signature', () => dimr.signatureHolds(signature, message, identity.key))
check('S beyond the group order', () => !dimr.signatureHolds(beyond, message, identity.key))
for (const key of ['01' + '00'.repeat(31), '00'.repeat(32), 'ec' + 'ff'.repeat(30) + '7f', 'ee' + 'ff'.repeat(30) + '7f', 'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa']) {
  check(`key of small order ${key.slice(0, 8)}`, () => !dimr.signatureHolds(dimr.concat(bytes(key), new Uint8Array(32)), message, bytes(key)))
}

const declared = readFileSync(new URL('dimr.d.ts', import.meta.url), 'utf8').matchAll(/^export (?:class|function|const) (\w+)/gm)
check('dimr.d.ts declares what dimr.js exports', () => [...declared].map(([, name]) => name).sort().join() === Object.keys(dimr).sort().join())

wrong.forEach((what) => console.log(`wrong: ${what}`))
console.log(`${count - wrong.length} of ${count} vectors hold`)
process.exit(wrong.length ? 1 : 0)
