/**
 * A js-libp2p peer that tries everything with one dimnode, and prints a JSON line for each thing tried.
 *
 * node peer.mjs dial SEED ADDRESS   dials the node, tries every protocol, submits jobs
 * node peer.mjs listen SEED         prints its address, waits to be dialled, tries what needs no dial; ends with its stdin
 */
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createIPNSRecord, marshalIPNSRecord, multihashToIPNSRoutingKey, unmarshalIPNSRecord } from 'ipns'
import { ipnsSelector } from 'ipns/selector'
import { ipnsValidator } from 'ipns/validator'
import { createLibp2p } from 'libp2p'
import * as dimr from './dimr.js'

const SECONDS = 20
const say = (line) => console.log(JSON.stringify(line))
const pause = (ms) => new Promise((done) => setTimeout(done, ms))
const demand = (holds, what) => { if (!holds) throw new Error(what) }

async function until(holds, what, seconds = SECONDS) {
  const end = Date.now() + seconds * 1000
  for (let found; ; await pause(50)) {
    if ((found = await holds())) return found
    demand(Date.now() < end, `not within ${seconds} s: ${what}`)
  }
}

/** Try one thing, bounded; its value, or undefined. */
async function attempt(row, trial) {
  const began = performance.now()
  try {
    const note = await Promise.race([trial(AbortSignal.timeout(SECONDS * 1000)), pause(SECONDS * 1000).then(() => { throw new Error('no answer in time') })])
    say({ row, ok: true, ms: Math.round(performance.now() - began), note: typeof note === 'string' ? note : '' })
    return note
  } catch (error) {
    say({ row, ok: false, ms: Math.round(performance.now() - began), note: String(error.message ?? error).slice(0, 200) })
  }
}

async function start(seed) {
  const identity = new dimr.Identity(dimr.fromHex(seed))
  const privateKey = await generateKeyPairFromSeed('Ed25519', identity.seed)
  const libp2p = await createLibp2p({
    privateKey,
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()], connectionEncrypters: [noise()], streamMuxers: [yamux()],
    services: {
      ping: ping(), identify: identify(), pubsub: gossipsub({ allowPublishToZeroTopicPeers: true, emitSelf: false }),
      dht: kadDHT({ protocol: '/ipfs/kad/1.0.0', clientMode: false, peerInfoMapper: passthroughMapper, allowQueryWithZeroPeers: true, validators: { ipns: ipnsValidator }, selectors: { ipns: ipnsSelector } })
    }
  })
  return { identity, libp2p, privateKey, peer: new dimr.Peer(libp2p, identity, { name: 'jessica' }) }
}

/** What is tried over a connection, whoever dialled it. */
async function tryConnection({ libp2p, peer }, remote) {
  const name = remote.toString()
  await attempt('identify', async () => {
    const found = await until(async () => {
      const known = await libp2p.peerStore.get(remote).catch(() => undefined) // until its own identify is done
      return known?.protocols.includes('/dim/job/1') && known
    }, 'protocols of the node')
    return `${found.protocols.length} protocols, ${new TextDecoder().decode(found.metadata.get('AgentVersion') ?? new Uint8Array())}`
  })
  // js enters a peer after a ping of its own, and has one ping stream for all: ours comes afterwards.
  const { routingTable } = libp2p.services.dht
  await attempt('kad: js enters the node in its table', async (signal) => {
    await until(() => routingTable.size > 0, 'an entry', 3).catch(() => routingTable.add(remote, { signal }))
    await until(() => routingTable.size > 0, 'an entry')
  })
  // js has one ping stream for all: its table may be using it still.
  const ping = (signal) => libp2p.services.ping.ping(remote, { signal }).catch((error) => {
    if (!String(error.message).startsWith('Too many outbound')) throw error
  })
  await attempt('ping', async (signal) => `${(await until(() => ping(signal), 'the stream to ping on')).toFixed(1)} ms`)
  await attempt('link (task stream)', () => until(() => peer.links.has(name), 'a link').then(() => ''))
  await attempt('gossipsub: a heartbeat of the node', () => until(() => peer.heard.has(name), 'a heartbeat').then(() => ''))
  await attempt('kad: find the closest peers', async (signal) => {
    const found = new Set()
    await until(async () => {
      for await (const event of libp2p.services.dht.getClosestPeers(remote.toMultihash().bytes, { signal })) {
        if (event.name === 'PEER_RESPONSE') event.closer.forEach(({ id }) => found.add(String(id)))
        if (event.name === 'FINAL_PEER') found.add(String(event.peer.id))
      }
      return found.has(name) // js enters a peer some time after it connected
    }, 'the node among them')
    return `${found.size} peers`
  })
  await attempt('kad: find a peer', async (signal) => {
    for await (const event of libp2p.services.dht.findPeer(remote, { signal })) {
      if (event.name === 'FINAL_PEER') return String(event.peer.id) === name ? '' : demand(false, 'another one')
    }
    throw new Error('not found')
  })
  return attempt('/dim/info/1: introduction', () => peer.introduction(name))
}

/** IPNS records in the DHT: the node's own, and one of js that the node keeps. js judges both, by its own validator. */
async function tryNames({ libp2p, privateKey }, remote) {
  const { dht } = libp2p.services
  await attempt("kad: get the record of the node's index", (signal) => until(async () => {
    for await (const event of dht.get(multihashToIPNSRoutingKey(remote.toMultihash()), { signal })) {
      if (event.name !== 'VALUE') continue
      const { value, sequence, validity, signatureV1 } = unmarshalIPNSRecord(event.value)
      const minutes = (new Date(validity) - Date.now()) / 60e3
      demand(/^\/ipfs\/bafkrei/.test(value) && minutes > 10 && minutes <= 30 && !signatureV1, `${value} for ${minutes} minutes`)
      return `number ${sequence}, ${Math.round(minutes)} minutes, V2 only`
    }
  }, 'a record'))
  for (const v1Compatible of [false, true]) {
    await attempt(`kad: the node keeps a record of js${v1Compatible ? ', with a V1 part' : ''}`, async (signal) => {
      const record = marshalIPNSRecord(await createIPNSRecord(privateKey, '/ipfs/bafkqaaa', v1Compatible ? 2n : 1n, 600e3, { v1Compatible }))
      let kept = 0
      for await (const event of dht.put(multihashToIPNSRoutingKey(libp2p.peerId.toMultihash()), record, { signal })) {
        if (event.name === 'PEER_RESPONSE' && event.messageName === 'PUT_VALUE') kept += event.from.equals(remote)
        // A peer of an earlier row, which has ended, may still be named to us and asked as well.
        demand(event.name !== 'QUERY_ERROR' || !event.from?.equals(remote), event.error?.message)
      }
      demand(kept === 1, 'it was not echoed')
      return `${record.length} bytes`
    })
  }
}

/** Jobs over /dim/job/1: one that works, and what has to be refused. */
async function tryJobs({ peer, libp2p, identity }, remote, introduction) {
  const name = remote.toString()
  const model = introduction?.manifests.find(({ said }) => said.name === 'triage')
  const rows = [17.99, 10.38, 122.8, 1001.0, 0.1184, 0.2776, 0.3001, 0.1471, 0.2419, 0.07871]
  const input = dimr.encodeTensors([dimr.tensor('x', 'float32', [1, 10], rows)])
  const tasks = [{ op: 'infer', model: model?.id }]
  let ended
  await attempt('/dim/job/1: a job, its receipt verified', async () => {
    demand(model, 'the node offers no model')
    ended = await peer.submit(name, tasks, [input])
    demand(ended.status === 'ok', ended.status)
    const label = dimr.decodeTensors(ended.outputs[0]).find((tensor) => tensor.name === 'label')
    return `label ${dimr.numbersOf(label)}, receipt of ${ended.receipt.length} bytes, ${ended.report.checks.length} checks`
  })
  await attempt('a changed receipt is refused', async () => {
    const changed = ended.receipt.slice()
    changed[400] ^= 1
    demand(dimr.verify(changed).status === 1, 'it was not')
  })
  await attempt('/dim/job/1: the same nonce again finds the same job', async () => {
    const more = { nonce: crypto.getRandomValues(new Uint8Array(16)) }
    const first = await peer.submit(name, tasks, [input], more)
    const again = await peer.submit(name, tasks, [input], more) // another spec: salts and clock differ
    demand(dimr.same(first.receipt, again.receipt), 'another receipt')
  })
  await attempt('/dim/job/1: a model that nobody has is refused by code', async () => {
    try {
      await peer.submit(name, [{ op: 'infer', model: dimr.OPEN_SWARM }], [input], { deadline_ms: 3000 })
    } catch (error) {
      demand(error instanceof dimr.PeerError && /^E-jobs-/.test(error.code), error.message)
      return error.code
    }
    throw new Error('it was not')
  })
  await attempt('/dim/job/1: a spec of another swarm gets no answer', async () => {
    const stranger = new dimr.Peer(libp2p, identity, { net: dimr.recordId(new Uint8Array(1)) })
    await stranger.submit(name, tasks, [input]).then(() => demand(false, 'it did'), (error) => demand(!error.code, error.message))
  })
}

const [, , mode, seed, address] = process.argv
const node = await start(seed)
if (mode === 'dial') {
  const target = multiaddr(address)
  const connection = await attempt('dial', () => node.peer.join(target))
  if (connection) {
    const introduction = await tryConnection(node, connection.remotePeer)
    await tryNames(node, connection.remotePeer)
    await tryJobs(node, connection.remotePeer, introduction)
  }
  say({ ready: true })
} else {
  await node.peer.join()
  say({ address: String(node.libp2p.getMultiaddrs()[0]) })
  const connection = await attempt('dial', () => until(() => node.libp2p.getConnections()[0], 'a connection'))
  if (connection) await tryConnection(node, connection.remotePeer)
  say({ ready: true })
}
process.stdin.resume()
await new Promise((done) => process.stdin.once('end', done).once('close', done))
await node.peer.leave()
await node.libp2p.stop()
process.exit(0)
