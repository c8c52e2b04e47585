/**
 * What is said over the control socket (doc/status.md): a line of JSON for each request, and one for each
 * answer, in order. A line that is no JSON is a command of MLVPN's. Knows no socket.
 */
import { parseLinkRate } from './linkrate.ts';
import { UsageFailure } from '../report.ts';
import type { LoggedEvent } from './eventlog.ts';
import type { Status } from './status.ts';

/** No request comes near it. */
export const MOST_LINE_BYTES = 4_096;

/** What is to become of a link; what is undefined stays. */
export interface LinkRequest {
  /** 'up': used, and no backup; 'backup': used while no other is. */
  readonly state?: 'up' | 'down' | 'backup';
  /** Bytes per second; 0: no cap. */
  readonly maxRate?: number;
}

/** What changes something. */
export type ControlAction =
  | { readonly command: 'reset' | 'reload' | 'stop' }
  | { readonly command: 'link'; readonly name: string; readonly change: LinkRequest };

export type ControlRequest =
  | ControlAction
  | { readonly command: 'status' }
  /** `follow`: goes on for as long as the connection does. */
  | { readonly command: 'events'; readonly follow: boolean }
  /** As MLVPN has it: the answer is the status itself. */
  | { readonly command: 'plain status' }
  | { readonly command: 'quit' };

export type ControlAnswer =
  | { readonly ok: true; readonly status: Status }
  | { readonly ok: true; readonly events: readonly LoggedEvent[] }
  /** Of an action: what there is to tell. */
  | { readonly ok: true; readonly lines: readonly string[] }
  | { readonly ok: false; readonly error: string };

/** Throws a `UsageFailure`. */
export function parseRequest(line: string): ControlRequest {
  const text = line.trim();
  if (!text.startsWith('{')) return parsePlain(text);
  const value = parseJson(text);
  const command = textOf(value, 'command');
  switch (command) {
    case 'status':
    case 'reset':
    case 'reload':
    case 'stop':
      return { command };
    case 'events':
      return { command, follow: value.follow === true };
    case 'link': {
      const words = Array.isArray(value.change) ? value.change.map(String) : [];
      return { command, name: textOf(value, 'name'), change: parseLinkChange(words) };
    }
    default:
      throw unknown(command);
  }
}

/** The words after `vpn link NAME`. Throws a `UsageFailure`. */
export function parseLinkChange(words: readonly string[]): LinkRequest {
  let change: LinkRequest = {};
  for (const word of words) {
    const part = parseWord(word);
    const [key] = Object.keys(part);
    if (key in change) throw new UsageFailure(`"${word}"`, 'one too many', LINK_USAGE);
    change = { ...change, ...part };
  }
  if (words.length === 0) throw new UsageFailure('too few words', '', LINK_USAGE);
  return change;
}

export const LINK_USAGE = 'write vpn link NAME up, down, backup or max=20mbit';

function parseWord(word: string): LinkRequest {
  if (word === 'up' || word === 'down' || word === 'backup') return { state: word };
  if (word.startsWith('max=')) return { maxRate: parseLinkRate(word.slice('max='.length)) };
  throw new UsageFailure(`"${word}"`, 'nothing that a link can be', LINK_USAGE);
}

function parsePlain(text: string): ControlRequest {
  const [word = ''] = text.toLowerCase().split(/\s+/);
  if (word === 'status') return { command: 'plain status' };
  if (word === 'quit') return { command: 'quit' };
  throw unknown(word);
}

function unknown(command: string): UsageFailure {
  const remedy = 'the commands are status, events, reset, link, reload and stop';
  return new UsageFailure(`unknown command "${command.slice(0, 32)}"`, '', remedy);
}

function parseJson(text: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new UsageFailure('the request', 'no JSON', 'send an object in one line');
  }
  // What begins with a brace and is JSON is an object.
  return value as Record<string, unknown>;
}

function textOf(value: Readonly<Record<string, unknown>>, key: string): string {
  const text = value[key];
  if (typeof text === 'string') return text;
  throw new UsageFailure(`"${key}"`, 'missing', 'send it as a string');
}
