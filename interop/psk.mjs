/**
 * A js-libp2p peer of a private network (a pre-shared key below everything else).
 *
 * node psk.mjs KEY            prints its address; every stream of /interop/echo/1 gets its bytes back; ends with its stdin
 * node psk.mjs KEY ADDRESS    dials, pings and echoes a megabyte, and prints a JSON line for each
 */
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { preSharedKey } from '@libp2p/pnet'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const ECHO = '/interop/echo/1'
const [key, target] = process.argv.slice(2)
const say = (line) => console.log(JSON.stringify(line))
const bytes = (chunk) => chunk.subarray()

const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()], connectionEncrypters: [noise()], streamMuxers: [yamux()],
  connectionProtector: preSharedKey({ psk: new TextEncoder().encode(`/key/swarm/psk/1.0.0/\n/base16/\n${key}`) }),
  services: { ping: ping(), identify: identify() }
})
await node.handle(ECHO, async (stream) => {
  for await (const chunk of stream) if (!stream.send(bytes(chunk))) await stream.onDrain()
  await stream.close()
})

async function attempt(row, trial) {
  const began = performance.now()
  const done = (ok, note) => say({ row, ok, ms: Math.round(performance.now() - began), note })
  try { done(true, String(await trial() ?? '')) } catch (error) { done(false, String(error.message ?? error).slice(0, 200)) }
}

if (target === undefined) {
  say({ address: String(node.getMultiaddrs()[0]) })
  process.stdin.resume()
  process.stdin.on('end', () => process.exit(0))
} else {
  let connection
  await attempt('js dials', async () => { connection = await node.dial(multiaddr(target), { signal: AbortSignal.timeout(10000) }) })
  await attempt('js pings dimnode', async () => `${await node.services.ping.ping(connection.remotePeer)} ms`)
  await attempt('js echoes a megabyte through dimnode', async () => {
    const stream = await connection.newStream(ECHO)
    const piece = new Uint8Array(65536).fill(7)
    let back = 0
    const reading = (async () => { for await (const chunk of stream) if ((back += bytes(chunk).length) >= 16 * piece.length) return })()
    for (let number = 0; number < 16; number++) if (!stream.send(piece)) await stream.onDrain()
    await Promise.race([reading, new Promise((resolve) => setTimeout(resolve, 10000))])
    if (back !== 16 * piece.length) throw new Error(`${back} bytes came back`)
  })
  process.exit(0)
}
