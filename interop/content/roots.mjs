/**
 * Roots as js-ipfs-unixfs-importer draws them: node roots.mjs SIZE… | FILE…, one JSON map on stdout.
 *
 * A size stands for leaves of 1 MiB, the leaf number k filled with the byte k mod 251; the last one may be short.
 */
import fs from 'node:fs'
import { importer } from 'ipfs-unixfs-importer'

const LEAF = 1024 * 1024
const nowhere = { async * putMany () {}, async put (cid) { return cid }, async get () { throw new Error('not kept') } }

async function * pattern (size) {
  for (let start = 0, k = 0; start < size; start += LEAF, k++) yield new Uint8Array(Math.min(LEAF, size - start)).fill(k % 251)
}

const roots = {}
for (const name of process.argv.slice(2)) {
  const content = /^\d+$/.test(name) ? pattern(Number(name)) : fs.createReadStream(name)
  for await (const entry of importer([{ content }], nowhere, { profile: 'unixfs-v1-2025' })) roots[name] = entry.cid.toString()
}
console.log(JSON.stringify(roots))
