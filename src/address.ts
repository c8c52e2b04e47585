/** IP addresses and endpoints between text and bytes. */
import { isIPv4, isIPv6 } from 'node:net';
import { ENDPOINT_BYTES, ENDPOINT_REMOTE_BYTES } from './batch.ts';

/* The layout is in batch.ts, at ENDPOINT_BYTES. */
const PORT_AT = 2;
const SCOPE_AT = 4;
const REMOTE_AT = 8;

/** 4 or 16 bytes; undefined if `text` is not an address. A scope (`%eth0`) is not part of it. */
export function parseIp(text: string): Uint8Array | undefined {
  if (isIPv4(text)) return Uint8Array.from(text.split('.').map(Number));
  const address = text.split('%')[0];
  if (!isIPv6(address)) return undefined;
  const bytes = new Uint8Array(16);
  // RFC 4291 §2.2: the last 32 bits may be written as IPv4, and "::" stands for as many zeros as needed.
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(address);
  let hexadecimal = address;
  if (dotted !== null) {
    const [a, b, c, d] = dotted[2].split('.').map(Number);
    hexadecimal = `${dotted[1]}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  }
  const [head, tail] = hexadecimal.split('::').map((part) => (part === '' ? [] : part.split(':')));
  const groups =
    tail === undefined
      ? head
      : [...head, ...Array<string>(8 - head.length - tail.length).fill('0'), ...tail];
  groups.forEach((group, i) => {
    const value = Number.parseInt(group, 16);
    bytes[2 * i] = value >>> 8;
    bytes[2 * i + 1] = value;
  });
  return bytes;
}

/** Text of 4 or 16 bytes; IPv6 in the form of RFC 5952. */
export function formatIp(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  const groups = Array.from({ length: 8 }, (_, i) =>
    ((bytes[2 * i] << 8) | bytes[2 * i + 1]).toString(16),
  );
  // The URL parser of the platform shortens as RFC 5952 §4.2 asks.
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
}

/** An endpoint (ENDPOINT_BYTES) of an address in bytes; our own side of it is left to the kernel. */
export function endpoint(address: Uint8Array, port: number, scope = 0): Uint8Array {
  const bytes = new Uint8Array(ENDPOINT_BYTES);
  const view = new DataView(bytes.buffer);
  bytes[0] = address.length === 4 ? 4 : 6;
  view.setUint16(PORT_AT, port);
  view.setUint32(SCOPE_AT, scope);
  bytes.set(address, REMOTE_AT);
  return bytes;
}

/** The address of the peer, without its port. */
export function formatRemote(bytes: Uint8Array): string {
  return formatIp(bytes.subarray(REMOTE_AT, REMOTE_AT + (bytes[0] === 4 ? 4 : 16)));
}

/** `192.0.2.1:443` or `[2001:db8::1]:443`. */
export function formatEndpoint(bytes: Uint8Array): string {
  const port = (bytes[PORT_AT] << 8) | bytes[PORT_AT + 1];
  const address = formatRemote(bytes);
  return bytes[0] === 4 ? `${address}:${port}` : `[${address}]:${port}`;
}

/** Whether the peer's address and port are the same at `a[atA]` and `b[atB]`. */
export function isSameRemote(a: Uint8Array, atA: number, b: Uint8Array, atB: number): boolean {
  for (let i = 0; i < ENDPOINT_REMOTE_BYTES; i++) {
    if (a[atA + i] !== b[atB + i]) return false;
  }
  return true;
}
