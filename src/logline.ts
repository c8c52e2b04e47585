/**
 * What a line of the log looks like: for people, for systemd's journal, and as JSON for programs. Pure.
 *
 * In the journal each line begins with its priority (sd-daemon(3)), which journald takes off, and has no
 * `vpn: `, since its unit is known there.
 */

/** syslog(3). A change of state is "normal but significant". */
const PRIORITIES = { error: 3, warning: 4, notice: 5, debug: 7 } as const;
export type Level = keyof typeof PRIORITIES;

/** Of what somebody can do something about. */
export interface Parts {
  readonly what: string;
  readonly why: string;
  readonly remedy: string;
}

export interface LogRecord {
  readonly level: Level;
  /** One line. Those that show a command start with `[#] `. */
  readonly message: string;
  /** Of a line of detail. */
  readonly subject?: string;
  /** Of what `message` was put together, if it was. */
  readonly parts?: Parts | undefined;
  /** Several lines. */
  readonly stack?: string | undefined;
}

export interface LogForm {
  readonly kind: 'text' | 'json';
  readonly isJournal: boolean;
  /** '' while it has no name. */
  readonly instance: string;
}

/** One line, or more with a stack, each with its end. `wallMs`: ms since 1970. */
export function logLines(record: LogRecord, form: LogForm, wallMs: number): string {
  const prefix = form.isJournal ? `<${PRIORITIES[record.level]}>` : '';
  const lines =
    form.kind === 'json' ? [jsonLine(record, form, wallMs)] : textLines(record, form.isJournal);
  return lines.map((line) => `${prefix}${line}\n`).join('');
}

function textLines(record: LogRecord, isJournal: boolean): readonly string[] {
  const { level, message, subject, stack } = record;
  const name = isJournal ? '' : 'vpn: ';
  const kind = level === 'warning' ? 'warning: ' : '';
  const about = subject === undefined ? '' : `${subject}: `;
  const line = message.startsWith('[#] ') ? message : `${name}${kind}${about}${message}`;
  return [...line.split('\n'), ...(stack === undefined ? [] : stack.split('\n'))];
}

function jsonLine(record: LogRecord, { instance }: LogForm, wallMs: number): string {
  const { level, message, subject, parts, stack } = record;
  return JSON.stringify({
    time: new Date(wallMs).toISOString(),
    priority: PRIORITIES[level],
    level,
    ...(instance === '' ? {} : { instance }),
    ...(subject === undefined ? {} : { subject }),
    message,
    ...parts,
    ...(stack === undefined ? {} : { stack }),
  });
}
