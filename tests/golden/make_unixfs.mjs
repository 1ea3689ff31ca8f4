// Writes the roots that an independent implementation gives: the golden list `unixfs.json`.
//   npm install ipfs-unixfs-importer@17.1.1 blockstore-core && node make_unixfs.mjs > unixfs.json
// No file reaches 2 GiB: beyond, this importer writes the file's size as a varint of 32 bits, which is no UnixFS any
// more (17.1.1: 2050 * LEAF + 5 becomes `18 05 00 00 00 00`). There aleph-cid is the oracle.
// Every file is leaves of 1 MiB, the leaf number k filled with the byte k mod 251; the last one may be short.
import { importer } from 'ipfs-unixfs-importer'

const LEAF = 1024 * 1024
const SIZES = [0, 1, LEAF - 1, LEAF, LEAF + 1, 10 * LEAF, 1023 * LEAF + 7, 1024 * LEAF, 1024 * LEAF + 1, 1030 * LEAF + 5, 2047 * LEAF + 9]

// Blocks are hashed and forgotten: nothing here reads them again.
const blocks = { async * putMany () {}, async put (cid) { return cid }, async get () { throw new Error('not kept') } }

async function * content (size) {
  for (let start = 0, k = 0; start < size; start += LEAF, k++) yield new Uint8Array(Math.min(LEAF, size - start)).fill(k % 251)
}

const roots = {}
for (const size of SIZES) {
  for await (const entry of importer([{ content: content(size) }], blocks, { profile: 'unixfs-v1-2025' })) roots[size] = entry.cid.toString()
}
console.log(JSON.stringify({ importer: 'ipfs-unixfs-importer 17.1.1', profile: 'unixfs-v1-2025', roots }, null, 1))
