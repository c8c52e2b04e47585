/**
 * Emulated links between hosts of a bed. The link itself is the program build/wan (wan.cc), which is
 * steered from here; the order of events on it is drawn at the top of wan_way.h.
 *
 *   const link = await wan(bed, client, server, { both: { rateMbit: 50, queueMs: 60, delayMs: 20 } });
 *   await link.set({ aToB: { lossRatio: 0.02 }, bToA: { isCut: true } });
 *   const { aToB } = await link.stats();
 *
 * The devices are tun devices: no Ethernet, no neighbours, a checksum in every packet and no offloads.
 */
import { existsSync, openSync, closeSync, statSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { run, type Bed, type Daemon, type Host } from './netns.ts';

/** One way of a link. What is left out stays as it is; at first nothing is limited, delayed or lost. */
export interface Figures {
  /** Of IP packets, headers included; 0 for no limit. */
  readonly rateMbit?: number;
  /** What the queue holds, as time that the rate needs for it. */
  readonly queueMs?: number;
  readonly delayMs?: number;
  /** Standard deviation of a normal distribution, drawn for each packet: packets overtake each other. */
  readonly jitterMs?: number;
  readonly lossRatio?: number;
  /** Of these one bit, anywhere behind the first byte, is inverted. */
  readonly corruptRatio?: number;
  readonly duplicateRatio?: number;
  /** Nothing arrives any more, not even what is on its way. */
  readonly isCut?: boolean;
  /** Longer packets vanish without a word. That of the devices is an option of `wan`. */
  readonly mtu?: number;
}

export interface Ways {
  readonly aToB?: Figures;
  readonly bToA?: Figures;
  /** For both ways; overruled by `aToB` and `bToA`. */
  readonly both?: Figures;
}

export interface WanOptions extends Ways {
  /** Of the device in both hosts: wan0, wan1, … unless given. */
  readonly device?: string;
  /** The link's networks are 10.NET.0.0/24 and 2001:db8:NET::/64; a is .1, b is .2. 100, 101, … unless given. */
  readonly net?: number;
  /** Of the devices. */
  readonly mtu?: number;
  /** With the same seed the same packets, counted from the first, are lost, corrupted and so on. */
  readonly seed?: number;
}

/** Packets since the link was made. entered + duplicated = delivered + dropped + queued + onWire. */
export interface WayStats {
  readonly entered: number;
  readonly enteredBytes: number;
  readonly delivered: number;
  readonly deliveredBytes: number;
  /** Dropped by the full queue. */
  readonly overflowed: number;
  readonly lost: number;
  readonly corrupted: number;
  readonly duplicated: number;
  /** Delivered after a packet that entered later. */
  readonly overtaken: number;
  readonly cut: number;
  readonly tooLong: number;
  /** Dropped because the device was down or deleted. */
  readonly refused: number;
  /** Delivered more than 1 ms after their time: the machine was busy, measurements are not to be trusted. */
  readonly late: number;
  readonly queued: number;
  readonly onWire: number;
  readonly queueMs: number;
  readonly longestQueueMs: number;
}

export interface WanStats {
  /** The emulator's clock. */
  readonly nowMs: number;
  readonly aToB: WayStats;
  readonly bToA: WayStats;
}

const PROGRAM = resolve(import.meta.dirname, '../build/wan');
const SOURCES = ['wan.cc', 'wan_way.h'].map((file) => resolve(import.meta.dirname, file));
const ANSWER_WITHIN_MS = 5000;
const FIRST_NET = 100;

/** Links made so far on each bed. */
const counts = new WeakMap<Bed, number>();

function checkProgram(): void {
  const isFresh =
    existsSync(PROGRAM) &&
    SOURCES.every((file) => statSync(file).mtimeMs <= statSync(PROGRAM).mtimeMs);
  if (!isFresh)
    throw new Error('build/wan is missing or old; "npm test" and "npm run bench" make it');
}

/** A link that runs. It ends with its bed, or with `close`. */
export class WanLink {
  readonly device: string;
  readonly net: number;
  private readonly emulator: Daemon;
  private readonly a: Host;
  private readonly b: Host;
  /** A pipe to the emulator, which ends when this end of it is closed. */
  private control: number | undefined;
  private asked = 0;

  constructor(
    emulator: Daemon,
    control: number,
    a: Host,
    b: Host,
    names: { device: string; net: number },
  ) {
    this.emulator = emulator;
    this.control = control;
    this.a = a;
    this.b = b;
    this.device = names.device;
    this.net = names.net;
  }

  /** Addresses of the two ends. */
  get ipA(): string {
    return `10.${this.net}.0.1`;
  }

  get ipB(): string {
    return `10.${this.net}.0.2`;
  }

  /** Processor time of the emulator so far. */
  get cpuSeconds(): number {
    return this.emulator.cpuSeconds();
  }

  /** Holds for packets that enter from now on; rate, queue and `isCut` also for those on their way. */
  async set({ both, aToB, bToA }: Ways): Promise<void> {
    for (const [way, figures] of [
      ['ab', { ...both, ...aToB }],
      ['ba', { ...both, ...bToA }],
    ] as const) {
      const words = wordsOf(figures);
      if (words.length > 0) await this.ask(`set ${way} ${words.join(' ')}`);
    }
  }

  async stats(): Promise<WanStats> {
    return JSON.parse(await this.ask('stats')) as WanStats;
  }

  /** Makes the device of one end anew, after it was deleted. */
  async reopen(end: 'a' | 'b'): Promise<void> {
    await this.ask(`open ${end}`);
    this.raise(end);
  }

  close(): void {
    if (this.control !== undefined) closeSync(this.control);
    this.control = undefined;
  }

  /** Gives addresses to a device and sets it up. */
  raise(end: 'a' | 'b'): void {
    const [host, last] = end === 'a' ? [this.a, 1] : [this.b, 2];
    host.run(`ip address replace 10.${this.net}.0.${last}/24 dev ${this.device}`);
    host.run(`ip address replace 2001:db8:${this.net}::${last}/64 dev ${this.device} nodad`);
    host.run(`ip link set ${this.device} up`);
  }

  /** The answers are lines of the program's output: "ready", then one for each command. */
  async ready(): Promise<void> {
    await this.answer();
  }

  private async ask(command: string): Promise<string> {
    if (this.control === undefined) throw new Error('the link is closed');
    this.asked++;
    writeSync(this.control, `${command}\n`);
    const answer = await this.answer();
    if (answer.startsWith('error')) throw new Error(`wan: ${answer}`);
    return answer;
  }

  private async answer(): Promise<string> {
    const index = this.asked;
    const deadline = performance.now() + ANSWER_WITHIN_MS;
    for (;;) {
      const { output, exit } = this.emulator;
      const lines = output.split('\n');
      if (lines.length > index + 1) return lines[index]!;
      if (exit !== undefined) throw new Error(`the emulator ended: ${output}`);
      if (performance.now() > deadline) throw new Error(`the emulator does not answer: ${output}`);
      // `until` looks every 50 ms: too seldom for changes in mid-traffic.
      await sleep(1);
    }
  }
}

function wordsOf(figures: Figures): string[] {
  const { rateMbit, isCut } = figures;
  const words: readonly (readonly [string, number | undefined])[] = [
    ['rate', rateMbit === undefined ? undefined : rateMbit * 1e6],
    ['queue', figures.queueMs],
    ['delay', figures.delayMs],
    ['jitter', figures.jitterMs],
    ['loss', figures.lossRatio],
    ['corrupt', figures.corruptRatio],
    ['duplicate', figures.duplicateRatio],
    ['blackhole', isCut === undefined ? undefined : Number(isCut)],
    ['mtu', figures.mtu],
  ];
  return words.flatMap(([key, value]) => (value === undefined ? [] : [`${key}=${value}`]));
}

/** Joins two hosts by an emulated link; both devices are up and have their addresses. */
export async function wan(bed: Bed, a: Host, b: Host, options: WanOptions = {}): Promise<WanLink> {
  checkProgram();
  const index = counts.get(bed) ?? 0;
  counts.set(bed, index + 1);
  const { device = `wan${index}`, net = FIRST_NET + index, mtu = 1500, seed = 1 } = options;
  const pipe = bed.file('control');
  const { status, stderr } = run(['mkfifo', pipe]);
  if (status !== 0) throw new Error(stderr);
  // For reading too: else it would wait for the reader.
  const control = openSync(pipe, 'r+');
  const spaces = [a, b].map(({ namespace }) => `/run/netns/${namespace}`);
  const words = [PROGRAM, ...spaces, device, String(mtu), String(seed)];
  const emulator = bed.spawn(['sh', '-c', `exec "$@" <${pipe}`, 'wan', ...words], {});
  const link = new WanLink(emulator, control, a, b, { device, net });
  await link.ready();
  await link.set(options);
  link.raise('a');
  link.raise('b');
  return link;
}
