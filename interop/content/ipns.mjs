/**
 * IPNS records between Python and js: node ipns.mjs FILE with {name, value, records: {what: hex}} as JSON. Says of each record whether
 * js-ipns accepts it for that name, and writes one of its own: {verdicts: {what: "ok…" | reason}, name, record}.
 */
import fs from 'node:fs'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey, peerIdFromString } from '@libp2p/peer-id'
import { createIPNSRecord, marshalIPNSRecord, multihashToIPNSRoutingKey, unmarshalIPNSRecord } from 'ipns'
import { ipnsValidator } from 'ipns/validator'

const asked = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))
const key = multihashToIPNSRoutingKey(peerIdFromString(asked.name).toMultihash())
const verdicts = {}
for (const [what, hex] of Object.entries(asked.records)) {
  const bytes = Buffer.from(hex, 'hex')
  try {
    await ipnsValidator(key, bytes)
    const said = unmarshalIPNSRecord(bytes)
    verdicts[what] = `ok ${said.sequence} ${said.value}`
  } catch (error) { verdicts[what] = String(error.message ?? error) }
}
const pair = await generateKeyPair('Ed25519')
const record = await createIPNSRecord(pair, asked.value, 7n, 48 * 3600e3)
console.log(JSON.stringify({ verdicts, name: peerIdFromPrivateKey(pair).toString(), record: Buffer.from(marshalIPNSRecord(record)).toString('hex') }))
