/**
 * A walk: what a user does on several hosts, command by command, as a document. Everything in it is run for real;
 * what a command prints stands below it, with the values that are each time others replaced (steady.ts).
 */
import type { Desk, Foreground } from './desk.ts';
import { until } from './netns.ts';
import { steady } from './steady.ts';

/** A script that tells what a VPN may change of a host. */
export const STATE = `#!/bin/sh
ip -br address
for family in -4 -6; do
    ip $family rule
    ip $family route show table all
done
`;

export interface Typed {
  /** The exit status it must have. */
  readonly status?: number;
  /** It is typed again until its output matches: for what takes a moment. */
  readonly until?: RegExp;
  /** For what only this command prints otherwise each time. */
  readonly as?: (text: string) => string;
}

/** A terminal whose program stays in the foreground. */
export interface Terminal {
  readonly desk: Desk;
  readonly program: Foreground;
  /** How much of its output is in the document. */
  shown: number;
}

export class Walk {
  private readonly parts: string[] = [];
  private block: string[] = [];

  heading(text: string): void {
    this.end();
    this.parts.push(`## ${text}`);
  }

  say(text: string): void {
    this.end();
    this.parts.push(text);
  }

  /** What follows is in another terminal. */
  apart(): void {
    this.end();
  }

  /** Changes a file as in an editor: each text that is in it once for another, line by line. */
  edit(desk: Desk, path: string, changes: readonly (readonly [string, string])[]): void {
    this.end();
    const hunks: string[] = [];
    let text = desk.get(path);
    for (const [from, to] of changes) {
      if (text.split(from).length !== 2) throw new Error(`"${from}" is not once in ${path}`);
      text = text.replace(from, () => to);
      const [old, now] = [from.split('\n'), to.split('\n')];
      hunks.push(
        [
          ...old.filter((line) => !now.includes(line)).map((line) => `-${line}`),
          ...now.map((line) => (old.includes(line) ? ` ${line}` : `+${line}`)),
        ].join('\n'),
      );
    }
    desk.put(path, text);
    this.parts.push(`\`\`\`diff\n${hunks.join('\n@@\n')}\n\`\`\``);
  }

  /** A program that draws on the terminal: its first picture. */
  async screen(desk: Desk, line: string, as = same): Promise<void> {
    const { output } = await desk.type(
      `script -qc '${SIZE}; timeout --foreground 1.5 ${line}' /dev/null`,
    );
    const picture = /\x1b\[H([^]*?)\x1b\[J/.exec(output)?.[1];
    if (picture === undefined) throw new Error(`"${line}" has drawn nothing:\n${output}`);
    this.command(desk, line);
    this.print(as(steady(picture.replaceAll(/\x1b\[\??\d*[A-Za-z]|\r/g, ''))));
  }

  /** Types a command and waits for its end. */
  async type(desk: Desk, line: string, typed: Typed = {}): Promise<void> {
    let ended = await desk.type(line);
    if (typed.until !== undefined) {
      await until(`"${line}" prints ${typed.until}`, async () => {
        if (typed.until?.test(ended.output) === true) return true;
        ended = await desk.type(line);
        return false;
      }).catch((error: unknown) => {
        throw new Error(`${(error as Error).message}; it printed:\n${ended.output}`);
      });
    }
    const { status = 0, as = same } = typed;
    if (ended.status !== status)
      throw new Error(`"${line}" ended with ${ended.status}:\n${ended.output}`);
    this.command(desk, line);
    this.print(as(steady(ended.output)));
  }

  /** Types a command that stays in the foreground, and waits until it has printed a line for each of `ready`. */
  async open(desk: Desk, line: string, ready: readonly RegExp[], as = same): Promise<Terminal> {
    const terminal = { desk, program: desk.open(line), shown: 0 };
    this.command(desk, line);
    await this.more(terminal, ready, as);
    return terminal;
  }

  /** What was printed since, once that has a line for each of `ready`. */
  async more(terminal: Terminal, ready: readonly RegExp[], as = same): Promise<void> {
    for (const pattern of ready) await terminal.program.line(pattern, terminal.shown);
    this.print(as(steady(this.unseen(terminal))));
  }

  /** ^C in a terminal, and what is printed after it; for the program that is a good end. */
  async interrupt(terminal: Terminal): Promise<void> {
    terminal.program.interrupt();
    this.block.push('^C');
    const status = await terminal.program.ended();
    if (status !== 0) throw new Error(`^C: ended with ${status}:\n${terminal.program.output}`);
    this.print(steady(this.unseen(terminal)));
  }

  /** Waits for the end of a program that was killed. */
  async gone({ program }: Terminal): Promise<void> {
    const status = await program.ended();
    if (status === 0) throw new Error('it was to be killed');
  }

  /** The document below its title. */
  text(): string {
    this.end();
    return `${this.parts.join('\n\n')}\n`;
  }

  private unseen(terminal: Terminal): string {
    const text = terminal.program.output.slice(terminal.shown);
    terminal.shown += text.length;
    return text;
  }

  private command(desk: Desk, line: string): void {
    this.block.push(`${desk.name}# ${line.replaceAll('\n', '\n> ')}`);
  }

  private print(text: string): void {
    if (text.trim() !== '') this.block.push(text.trimEnd());
  }

  private end(): void {
    if (this.block.length > 0) this.parts.push(`\`\`\`console\n${this.block.join('\n')}\n\`\`\``);
    this.block = [];
  }
}

/** Of a terminal. */
const SIZE = 'stty cols 96 rows 20';
const same = (text: string): string => text;
