/**
 * What both ends derive from the key they share (PROTOCOL §2): three keys, and the inner IPv6
 * addresses.
 */
import { KEY_BYTES, keyedHash, secret, wipe } from './crypto.ts';

/** What is derived from the shared key (§2). The owner wipes it with `wipeSharedKeys`. */
export interface SharedKeys {
  readonly psk: Uint8Array;
  readonly mac: Uint8Array;
  readonly cookie: Uint8Array;
}

/** `sharedKey` is 32 bytes, borrowed for the call. */
export function sharedKeys(sharedKey: Uint8Array): SharedKeys {
  const labelled = (label: string): Uint8Array => {
    const key = secret(KEY_BYTES);
    keyedHash(key, sharedKey, new TextEncoder().encode(label));
    return key;
  };
  return { psk: labelled('vpn psk'), mac: labelled('vpn mac'), cookie: labelled('vpn cookie') };
}

export function wipeSharedKeys(keys: SharedKeys): void {
  wipe(keys.psk, keys.mac, keys.cookie);
}

/** The inner IPv6 addresses: a unique local /64 (RFC 4193) derived from the key (PROTOCOL §2). */
export function innerIpv6(
  sharedKey: Uint8Array,
  serverIp: Uint8Array,
  clientIp: Uint8Array,
): { readonly server: Uint8Array; readonly client: Uint8Array } {
  const prefix = new Uint8Array(16);
  keyedHash(prefix, sharedKey, new TextEncoder().encode('vpn prefix'), serverIp, clientIp);
  const server = new Uint8Array(16);
  server[0] = 0xfd;
  server.set(prefix.subarray(0, 7), 1);
  const client = server.slice();
  server[15] = 1;
  client[15] = 2;
  return { server, client };
}
