// Compiled, never run: the types of dimr.js as a program uses them, and names that the module really exports.
import * as dimr from './dimr.js'

const identity = new dimr.Identity(new Uint8Array(32))
const report: dimr.Report = dimr.verify(new Uint8Array(0), { blobs: [] })
const failed: string[] = report.checks.filter((check) => check.outcome === 'fail').map((check) => check.code)
const blob: Uint8Array = dimr.encodeTensors([dimr.tensor('x', 'int64', [1], [1n])])
const status: 0 | 1 | 3 = report.status
export { blob, failed, identity, status }
