/** Holds doc/vectors.json against PROTOCOL.md by way of other primitives (test/oracle.ts), and our code against both. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { native } from '../test/nativebed.ts';
import { blake2b, hchacha20, noiseNNpsk0, seal, x25519, xchachaSeal } from '../test/oracle.ts';
import { parseIp } from './address.ts';
import { datagramTable, sealTable } from './batch.ts';
import { decodeSection, encodeSection, section, type Section } from './feedback.ts';
import { innerIpv6, sharedKeys } from './sharedkey.ts';
import { openCookie, sealCookie, TAG_BYTES } from './crypto.ts';
import { Initiator, isMacRight, messageMac, noCookie, PROLOGUE } from './handshake.ts';
import { NoiseInitiator, NoiseResponder } from './noise.ts';
import { Responder } from './responder.ts';
import {
  CLEAR_BIT,
  decodePayload1,
  decodePayload2,
  encodePayload1,
  encodePayload2,
  HEADER_BYTES,
  MESSAGE1_BYTES,
  MESSAGE1_MAC1_AT,
  MESSAGE1_MAC2_AT,
  MESSAGE2_BYTES,
  MESSAGE2_MAC1_AT,
  noisePart,
  VERSION_MAC_AT,
  writeHeader,
  writeNonce,
} from './wire.ts';

type Fields = Omit<Section, 'runs' | 'runCount'>;

interface Vectors {
  sharedKey: string;
  serverIp: string;
  clientIp: string;
  derived: Record<'psk' | 'macKey' | 'cookieKey' | 'prefix' | 'serverIpv6' | 'clientIpv6', string>;
  handshake: Record<
    | 'initiatorEphemeral'
    | 'responderEphemeral'
    | 'payload1'
    | 'message1'
    | 'payload2'
    | 'message2'
    | 'k1'
    | 'k2',
    string
  >;
  cookie: Record<'secret' | 'endpoint' | 'cookie' | 'nonce' | 'message' | 'message1', string>;
  version: Record<'message1' | 'message', string>;
  report: { what: string; sections: (Fields & { runs: number[] })[]; body: string };
  datagrams: (Datagram & { plaintext: string })[];
  clear: (Datagram & { content: string })[];
}

interface Datagram {
  what: string;
  cipher: 1 | 2;
  direction: 'client to server' | 'server to client';
  epoch: number;
  link: number;
  session: string;
  counter: string;
  nonce: string;
  datagram: string;
}

const VECTORS = JSON.parse(
  readFileSync(new URL('../doc/vectors.json', import.meta.url), 'utf8'),
) as Vectors;
const { derived, handshake, cookie, version, report } = VECTORS;
const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'));
const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const ascii = (text: string): Buffer => Buffer.from(text, 'ascii');
const K = hex(VECTORS.sharedKey);
const SERVER_IP = parseIp(VECTORS.serverIp)!;
const CLIENT_IP = parseIp(VECTORS.clientIp)!;

describe('the primitives that check the vectors', () => {
  it('agree with node:crypto and the published examples themselves', () => {
    for (const size of [0, 1, 127, 128, 129, 255, 256, 257, 1_000]) {
      const message = Buffer.alloc(size, 0x5a);
      const expected = createHash('blake2b512').update(message).digest();
      assert.deepEqual(blake2b(Buffer.alloc(0), message, 64), expected, `${size} bytes`);
    }
    const counting = Buffer.from(Array.from({ length: 64 }, (_, i) => i));
    // BLAKE2's own vectors (blake2-kat.json): key 00…3f, and no input or the first byte.
    assert.equal(
      toHex(blake2b(counting, Buffer.alloc(0), 64)).slice(0, 32),
      '10ebb67700b1868efb4417987acf4690',
    );
    // draft-irtf-cfrg-xchacha-03 §2.2.1.
    assert.equal(
      toHex(hchacha20(counting.subarray(0, 32), hex('000000090000004a0000000031415927'))),
      '82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc',
    );
    // RFC 7748 §5.2.
    assert.equal(
      toHex(
        x25519(
          hex('a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4'),
          hex('e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c'),
        ),
      ),
      'c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552',
    );
  });
});

/** The nine bytes of §4, with the nonce of the vector held against it. */
function headerOf(vector: Datagram, type: number): string {
  const counter = BigInt(vector.counter).toString(16).padStart(16, '0');
  const link = vector.link.toString(16).padStart(2, '0');
  assert.equal(vector.nonce, '000000' + link + counter, vector.what);
  return `${type}${vector.epoch}${link}${vector.session}${counter.slice(8)}`;
}

const keyOf = ({ direction }: Datagram): Uint8Array =>
  hex(direction === 'client to server' ? handshake.k1 : handshake.k2);

function sealAs(vector: Datagram, ad: Uint8Array, plaintext: Uint8Array): Buffer {
  const name = vector.cipher === 1 ? 'aes-256-gcm' : 'chacha20-poly1305';
  return seal(name, keyOf(vector), hex(vector.nonce), ad, plaintext);
}

describe('the vectors are what PROTOCOL.md says, computed otherwise:', () => {
  const mac = hex(derived.macKey);

  it('keys and addresses (§2)', () => {
    assert.equal(toHex(blake2b(K, ascii('vpn psk'), 32)), derived.psk);
    assert.equal(toHex(blake2b(K, ascii('vpn mac'), 32)), derived.macKey);
    assert.equal(toHex(blake2b(K, ascii('vpn cookie'), 32)), derived.cookieKey);
    const prefix = blake2b(K, Buffer.concat([ascii('vpn prefix'), SERVER_IP, CLIENT_IP]), 16);
    assert.equal(toHex(prefix), derived.prefix);
    assert.equal(derived.serverIpv6, `fd${derived.prefix.slice(0, 14)}0000000000000001`);
    assert.equal(derived.clientIpv6, `fd${derived.prefix.slice(0, 14)}0000000000000002`);
  });

  it('messages 1 and 2 and the keys (§3.1, §3.2, §3.4)', () => {
    const noise = noiseNNpsk0(
      hex(derived.psk),
      ascii('vpn 1 client'),
      { ephemeral: hex(handshake.initiatorEphemeral), payload: hex(handshake.payload1) },
      { ephemeral: hex(handshake.responderEphemeral), payload: hex(handshake.payload2) },
    );
    const first = Buffer.concat([hex('10010000'), noise.message1]);
    const second = Buffer.concat([
      hex('20'),
      hex(handshake.payload1).subarray(8, 11),
      noise.message2,
    ]);
    const mac1 = toHex(blake2b(mac, first, 16));
    assert.equal(handshake.message1, toHex(first) + mac1 + '00'.repeat(16));
    assert.equal(handshake.message2, toHex(second) + toHex(blake2b(mac, second, 16)));
    assert.deepEqual([toHex(noise.k1), toHex(noise.k2)], [handshake.k1, handshake.k2]);
  });

  it('cookie and version (§3.3)', () => {
    const given = blake2b(hex(cookie.secret), hex(cookie.endpoint), 16);
    assert.equal(toHex(given), cookie.cookie);
    const first = hex(handshake.message1);
    const sealed = xchachaSeal(
      hex(derived.cookieKey),
      hex(cookie.nonce),
      first.subarray(116, 132),
      given,
    );
    assert.equal(cookie.message, '30000000' + cookie.nonce + toHex(sealed));
    const proved = first.subarray(0, 132);
    assert.equal(cookie.message1, toHex(proved) + toHex(blake2b(given, proved, 16)));
    const other = hex(version.message1);
    assert.equal(toHex(blake2b(mac, other.subarray(0, 116), 16)), toHex(other.subarray(116, 132)));
    const answer = Buffer.concat([hex('40010000'), other.subarray(116, 132)]);
    assert.equal(version.message, toHex(answer) + toHex(blake2b(mac, answer, 16)));
  });

  it('datagrams under both ciphers (§4)', () => {
    const ciphers = new Set(VECTORS.datagrams.map(({ cipher }) => cipher));
    assert.deepEqual([...ciphers].sort(), [1, 2]);
    for (const vector of VECTORS.datagrams) {
      const header = headerOf(vector, 8);
      const sealed = sealAs(vector, hex(header), hex(vector.plaintext));
      assert.equal(vector.datagram, header + toHex(sealed), vector.what);
    }
  });

  it('datagrams in the clear under both ciphers (§5.6), under nonces of their own', () => {
    const ciphers = new Set(VECTORS.clear.map(({ cipher }) => cipher));
    assert.deepEqual([...ciphers].sort(), [1, 2]);
    for (const vector of VECTORS.clear) {
      const readable = headerOf(vector, 9) + vector.content;
      const tag = sealAs(vector, hex(readable), new Uint8Array(0));
      assert.equal(tag.length, 16);
      assert.equal(vector.datagram, readable + toHex(tag), vector.what);
      const isUsed = VECTORS.datagrams.some(({ nonce }) => nonce === vector.nonce);
      assert.ok(!isUsed, vector.what);
    }
  });

  it('a report (§5.5)', () => {
    const field = (value: number, bytes: number): string =>
      value.toString(16).padStart(2 * bytes, '0');
    const written = report.sections.map((one) => {
      const start = field(one.link, 1) + field(one.epoch, 1) + field(one.highest, 4);
      const times = field(one.age, 2) + field(one.arrival, 4);
      const sums = field(one.packets, 4) + field(one.bytes, 4);
      const delays = field(one.leastDelay, 2) + field(one.meanDelay, 2) + field(one.reordering, 2);
      const runs = one.runs.map((length) => field(length, 2)).join('');
      return start + times + sums + delays + field(one.runs.length, 2) + runs;
    });
    assert.equal(written.join(''), report.body);
    const carrier = VECTORS.datagrams.find(({ what }) => what === 'the report');
    assert.equal(carrier?.plaintext, '070000001234' + '80' + report.body);
  });
});

describe('our code agrees with the vectors in', () => {
  const keys = sharedKeys(K);

  it('keys and addresses', () => {
    assert.deepEqual([keys.psk, keys.mac, keys.cookie].map(toHex), [
      derived.psk,
      derived.macKey,
      derived.cookieKey,
    ]);
    const { server, client } = innerIpv6(K, SERVER_IP, CLIENT_IP);
    assert.deepEqual([server, client].map(toHex), [derived.serverIpv6, derived.clientIpv6]);
  });

  it('both messages and their keys, on both sides', () => {
    const payload1 = decodePayload1(hex(handshake.payload1));
    const payload2 = decodePayload2(hex(handshake.payload2));
    assert.equal(toHex(encodePayload1(payload1)), handshake.payload1);
    assert.equal(toHex(encodePayload2(payload2)), handshake.payload2);

    const initiator = new NoiseInitiator(keys.psk, PROLOGUE, hex(handshake.initiatorEphemeral));
    const message1 = new Uint8Array(MESSAGE1_BYTES);
    message1.set(hex('10010000'));
    initiator.writeMessage1(noisePart(message1), encodePayload1(payload1));
    message1.set(messageMac(keys.mac, message1, MESSAGE1_MAC1_AT), MESSAGE1_MAC1_AT);
    assert.equal(toHex(message1), handshake.message1);

    const responder = new NoiseResponder(keys.psk, PROLOGUE);
    const read1 = new Uint8Array(64);
    assert.ok(responder.readMessage1(read1, noisePart(message1)));
    assert.equal(toHex(read1), handshake.payload1);
    const message2 = new Uint8Array(MESSAGE2_BYTES);
    message2.set(hex('20112233'));
    const theirs = responder.writeMessage2(
      noisePart(message2),
      encodePayload2(payload2),
      hex(handshake.responderEphemeral),
    );
    message2.set(messageMac(keys.mac, message2, MESSAGE2_MAC1_AT), MESSAGE2_MAC1_AT);
    assert.equal(toHex(message2), handshake.message2);

    const read2 = new Uint8Array(32);
    const ours = initiator.readMessage2(read2, noisePart(message2));
    assert.equal(toHex(read2), handshake.payload2);
    for (const pair of [ours, theirs]) {
      assert.deepEqual([pair!.k1, pair!.k2].map(toHex), [handshake.k1, handshake.k2]);
    }
  });

  it('the first message, as the server reads it', () => {
    const answer = decodePayload2(hex(handshake.payload2));
    const responder = new Responder(
      keys,
      () => answer,
      () => undefined,
    );
    const outcome = responder.readMessage1(hex(handshake.message1), new Uint8Array(40), 0, 0);
    assert.deepEqual(outcome?.made?.client, decodePayload1(hex(handshake.payload1)));
    const other = responder.readMessage1(hex(version.message1), new Uint8Array(40), 0, 0);
    assert.equal(toHex(other!.answer), version.message);
  });

  it('cookie and version, as the client reads them', () => {
    const client = new Initiator(keys, decodePayload1(hex(handshake.payload1)), noCookie(), 0);
    client.message.set(hex(handshake.message1));
    const taken = noCookie();
    assert.ok(client.takeCookie(hex(cookie.message), taken, 0));
    assert.equal(toHex(taken.bytes), cookie.cookie);
    assert.equal(toHex(client.message), cookie.message1);
    assert.equal(
      toHex(messageMac(hex(cookie.cookie), hex(cookie.message1), MESSAGE1_MAC2_AT)),
      cookie.message1.slice(-32),
    );
    client.message.set(hex(version.message1));
    assert.equal(client.readVersion(hex(version.message)), 1);
    assert.ok(isMacRight(keys.mac, hex(version.message), VERSION_MAC_AT));
  });

  it('sealing a cookie', () => {
    const sealed = new Uint8Array(32);
    const mac1 = hex(handshake.message1).subarray(MESSAGE1_MAC1_AT, MESSAGE1_MAC2_AT);
    sealCookie(sealed, keys.cookie, hex(cookie.nonce), mac1, hex(cookie.cookie));
    assert.equal('30000000' + cookie.nonce + toHex(sealed), cookie.message);
    const opened = new Uint8Array(16);
    assert.ok(openCookie(opened, keys.cookie, hex(cookie.nonce), mac1, sealed));
    assert.equal(toHex(opened), cookie.cookie);
  });

  it('headers and nonces of datagrams', () => {
    for (const { what, epoch, link, session, counter, nonce, datagram } of VECTORS.datagrams) {
      const header = new Uint8Array(HEADER_BYTES);
      writeHeader(header, 0, epoch, link, Number.parseInt(session, 16), Number(counter));
      assert.equal(toHex(header), datagram.slice(0, 2 * HEADER_BYTES), what);
      const written = new Uint8Array(12);
      writeNonce(written, 0, link, Number(counter));
      assert.equal(toHex(written), nonce, what);
    }
  });

  it('datagrams in the clear, both ways', () => {
    for (const vector of VECTORS.clear) {
      const { what, epoch, link, session, counter, nonce, content } = vector;
      const readable = content.length / 2;
      const slab = new Uint8Array(HEADER_BYTES + readable + TAG_BYTES);
      writeHeader(slab, 0, epoch | CLEAR_BIT, link, Number.parseInt(session, 16), Number(counter));
      const sealing = sealTable(1);
      sealing.sizes[0] = readable;
      writeNonce(sealing.nonces, 0, link, Number(counter));
      const key = native.aeadCreate(vector.cipher, keyOf(vector));
      native.authenticate(key, hex(content), slab, HEADER_BYTES, sealing, 1);
      assert.equal(toHex(slab), vector.datagram, what);
      const opening = datagramTable(1);
      opening.lengths[0] = slab.length;
      opening.keys[0] = key;
      opening.clear[0] = 1;
      opening.nonces.set(hex(nonce));
      assert.equal(native.open(slab, HEADER_BYTES, opening, 1), 0, what);
      assert.equal(toHex(slab), vector.datagram, what);
      native.aeadFree(key);
    }
  });

  it('a report, both ways', () => {
    const body = new Uint8Array(report.body.length / 2);
    const bytes = hex(report.body);
    let end = 0;
    let at = 0;
    for (const { runs, ...fields } of report.sections) {
      const one = section();
      Object.assign(one, fields, { runCount: runs.length });
      one.runs.set(runs);
      end = encodeSection(body, end, one);
      const read = section();
      at = decodeSection(bytes, at, read);
      assert.deepEqual(read, one);
    }
    assert.equal(toHex(body), report.body);
    assert.deepEqual([end, at], [body.length, body.length]);
  });
});
