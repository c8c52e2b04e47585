/* Protocol constants. Both ends must agree; each is in PROTOCOL.md under the same name. */

export const PROTOCOL_VERSION = 1;
/** The client makes new keys this long after the last. */
export const REKEY_AFTER_MS = 120_000;
/** Keys this old neither seal nor open. */
export const REJECT_AFTER_MS = 180_000;
/**
 * Datagrams of one direction and epoch after which keys are renewed, and refused. Counters are
 * `number`s: exact up to 2^53, far above both.
 */
export const REKEY_AFTER_COUNTER = 2 ** 32;
export const REJECT_AFTER_COUNTER = 2 ** 33;
/** Handshakes a server keeps waiting for their proof, and for how long. */
export const PENDING_SLOTS = 8;
export const PENDING_MS = 10_000;
/** How long an answer that refuses (busy, …) keeps its slot, so that repeats cost nothing. */
export const REFUSED_MS = 1_000;
export const COOKIE_MS = 120_000;
/** Without anything authenticated for so long the peer counts as silent. */
export const SILENT_MS = 3_000;
export const PROBE_INTERVAL_MS = 1_000;
/** Places of the replay window, per link and epoch. */
export const REPLAY_WINDOW = 8_192;
/** Bounds of what waits for its other half. */
export const HALVES_BYTES = 1_048_576;
export const HALVES_MS = 1_000;
/** Every link that carries IPv6 carries this much (RFC 8200 §5); taken for granted. */
export const BASE_PATH_MTU = 1_280;
/** 250 µs units of the send time. */
export const SEND_TIME_UNITS_PER_MS = 4;

/* Tuning constants. Each end may differ. */

/** When a first message is sent again: quick at first, since a lost one is the common case. */
export const HANDSHAKE_RETRY_MS: readonly number[] = [250, 500, 1_000, 1_000, 1_000, 1_250];
/** Epochs that can be open at once: the two bits of the header. */
export const EPOCHS = 4;
/** How much longer than two round trips old keys still open (design: covers a slow link's queue). */
export const OLD_KEYS_EXTRA_MS = 1_000;
/** Inner MTU: IPv6 needs 1280 (RFC 8200 §5), and Ethernet has 1500. */
export const MIN_TUN_MTU = 1_280;
export const MAX_TUN_MTU = 1_500;
/** A larger tun MTU is believed only after so long. */
export const RAISE_MTU_AFTER_MS = 60_000;
/** Links at once: so many have a bit of their own in `PacketStore.lostOn`, and numbers for seven instances (numbers.ts). */
export const MOST_LINKS = 32;
