/**
 * Messages between the monitor and its worker: JSON or raw bytes, in order, some with a device or a socket
 * (native/channel.cc). Either side bounds what it takes from the other, which may be broken into.
 */
import type { Handle, Native } from '../native.ts';
import { PollEvent } from '../native.ts';

/** First byte of a part: a whole message, one that goes on in the next part, raw bytes. */
const Part = { last: 0, more: 1, raw: 2 } as const;
/** Some of them are within the buffers that any system grants; unix(7): Linux grants 208 KiB. */
const PART_BYTES = 48 * 1024;
/** The longest message is that of the start: 512 events and the programs of all filters. */
const MOST_MESSAGE_BYTES = 4 * 1024 * 1024;
/** What waits for a side that does not read: it hangs, or means to fill our memory. */
const MOST_WAITING_BYTES = 16 * 1024 * 1024;

export type ChannelNative = Pick<
  Native,
  'channelSend' | 'channelReceive' | 'poll' | 'close' | 'channelAdopt' | 'channelPair'
>;

export interface ChannelEvents {
  /** `passed` is 0 for none; whoever is called closes it. A throw ends the channel. */
  message(message: unknown, passed: Handle): void;
  /** Borrowed for the call. */
  raw(bytes: Uint8Array): void;
  /** Once: the other side is gone, hangs, or has sent what is no message. */
  ended(why: string): void;
}

interface Waiting {
  readonly bytes: Uint8Array;
  readonly passed: Handle;
  readonly isLent: boolean;
}

export class Channel {
  private readonly native: ChannelNative;
  private readonly handle: Handle;
  private readonly takes: boolean;
  private readonly events: ChannelEvents;
  private readonly buffer = new Uint8Array(PART_BYTES + 1);
  private readonly waiting: Waiting[] = [];
  private waitingBytes = 0;
  private parts: Buffer[] = [];
  private partsBytes = 0;
  private isEnded = false;

  /** Takes over `handle`. `takes`: whether handles are accepted; whatever comes otherwise is closed. */
  constructor(native: ChannelNative, handle: Handle, takes: boolean, events: ChannelEvents) {
    this.native = native;
    this.handle = handle;
    this.takes = takes;
    this.events = events;
    native.poll(handle, PollEvent.readable, this.onReady);
  }

  /** `passed`, if not 0, is the channel's from now on unless it is lent. Without effect after the end. */
  send(message: object, passed: Handle = 0, isLent = false): void {
    const text = Buffer.from(JSON.stringify(message));
    for (let at = 0; at === 0 || at < text.length; at += PART_BYTES) {
      const piece = text.subarray(at, at + PART_BYTES);
      const isLast = at + PART_BYTES >= text.length;
      this.put(isLast ? Part.last : Part.more, piece, isLast ? passed : 0, isLent);
    }
  }

  /** `bytes` are copied; at most `PART_BYTES`. The copy is wiped when it is sent. */
  sendRaw(bytes: Uint8Array): void {
    this.put(Part.raw, bytes, 0, false);
  }

  close(): void {
    if (this.isEnded) return;
    this.isEnded = true;
    for (const waiting of this.waiting.splice(0)) this.finish(waiting);
    this.native.close(this.handle);
  }

  private put(part: number, piece: Uint8Array, passed: Handle, isLent: boolean): void {
    const bytes = new Uint8Array(1 + piece.length);
    bytes[0] = part;
    bytes.set(piece, 1);
    const waiting = { bytes, passed, isLent };
    if (this.isEnded) {
      this.finish(waiting);
      return;
    }
    this.waiting.push(waiting);
    this.waitingBytes += bytes.length;
    this.flush();
    if (this.waitingBytes > MOST_WAITING_BYTES) this.end('does not read what it is sent');
  }

  private flush(): void {
    for (let next = this.waiting.at(0); next !== undefined; next = this.waiting.at(0)) {
      try {
        if (!this.native.channelSend(this.handle, next.bytes, next.passed)) break;
      } catch {
        this.end('is gone');
        return;
      }
      this.waiting.shift();
      this.waitingBytes -= next.bytes.length;
      this.finish(next);
    }
    const writable = this.waiting.length > 0 ? PollEvent.writable : 0;
    this.native.poll(this.handle, PollEvent.readable | writable, this.onReady);
  }

  /** It was sent, or never will be. */
  private finish({ bytes, passed, isLent }: Waiting): void {
    bytes.fill(0);
    if (passed !== 0 && !isLent) this.native.close(passed);
  }

  private readonly onReady = (events: number): void => {
    if ((events & PollEvent.writable) !== 0 && !this.isEnded) this.flush();
    if ((events & PollEvent.readable) !== 0) this.receive();
  };

  private receive(): void {
    while (!this.isEnded) {
      const arrived = this.native.channelReceive(this.handle, this.buffer, this.takes);
      if (arrived === undefined) return;
      if (arrived.size < 1) {
        this.end('is gone');
        return;
      }
      try {
        this.take(this.buffer.subarray(0, arrived.size), arrived.passed);
      } catch (error) {
        this.end(error instanceof Error ? error.message : String(error));
      }
    }
  }

  private take(bytes: Uint8Array, passed: Handle): void {
    const piece = bytes.subarray(1);
    if (bytes[0] === Part.raw) {
      this.events.raw(piece);
      piece.fill(0);
      return;
    }
    this.partsBytes += piece.length;
    if (bytes[0] > Part.more || this.partsBytes > MOST_MESSAGE_BYTES) {
      throw new Error('sent what is no message');
    }
    this.parts.push(Buffer.from(piece));
    if (bytes[0] === Part.more) return;
    const text = Buffer.concat(this.parts).toString();
    this.parts = [];
    this.partsBytes = 0;
    this.events.message(parsed(text), passed);
  }

  private end(why: string): void {
    if (this.isEnded) return;
    this.close();
    this.events.ended(why);
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error('sent what is no message');
  }
}
