/**
 * Every receipt of a folder made by receipts.py, judged by dimr.js: status and every line must be those of `dim verify`.
 * Of a damaged file status and damaged places: of several things wrong with one place either verifier names one.
 * Usage: node receipts.mjs FOLDER. Prints what differs, then how many verdicts are the same; exit code 1 if not all are.
 */
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { verify } from './dimr.js'

const folder = process.argv[2]
const textOf = ({ outcome, code, subject }) => `${outcome} ${code} ${subject}`
const DAMAGED = 'not-checked R-SPEC file'
/** Lines that have to be the same. */
const comparable = (lines) => [...new Set(lines.includes(DAMAGED) ? lines.map((line) => line.replace(/^fail R-\w+ /, 'damaged ')) : lines)].sort()

/** What dimr.js says otherwise than expected, "" when nothing. */
function difference(number, { label, status, checks }) {
  const found = verify(new Uint8Array(readFileSync(`${folder}/${number}.dimr`)))
  const lines = found.checks.map(textOf)
  if (found.status === status && comparable(lines).join() === comparable(checks).join()) return ''
  const more = lines.filter((line) => !checks.includes(line)).join(', ')
  const less = checks.filter((line) => !lines.includes(line)).join(', ')
  return `${number} ${label}: status ${found.status}, expected ${status}; only dimr.js: ${more || '-'}; only dim verify: ${less || '-'}`
}

const expected = JSON.parse(readFileSync(`${folder}/expected.json`))
if (isMainThread) {
  const threads = Math.min(4, availableParallelism())
  const parts = Array.from({ length: threads }, (_, first) => new Promise((done, failed) => {
    new Worker(new URL(import.meta.url), { workerData: { first, threads }, argv: [folder] }).once('message', done).once('error', failed)
  }))
  const apart = (await Promise.all(parts)).flat()
  apart.forEach((line) => console.log(line))
  console.log(`${expected.length - apart.length} of ${expected.length} verdicts are those of dim verify`)
  process.exitCode = apart.length ? 1 : 0
} else {
  const { first, threads } = workerData
  parentPort.postMessage(expected.flatMap((entry, number) => (number % threads === first && difference(number, entry)) || []))
}
