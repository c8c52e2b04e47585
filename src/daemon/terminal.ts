/** The terminal that `vpn top` draws on. Escape sequences of ECMA-48 and xterm. */
import { print } from '../report.ts';

const ENTER = '\x1b[?1049h\x1b[?25l';
const LEAVE = '\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const CLEAR_LINE = '\x1b[K';
const CLEAR_BELOW = '\x1b[J';
const CTRL_C = '\x03';

export interface Terminal {
  readonly columns: number;
  readonly rows: number;
  /** Replaces what is shown. Lines are cut already. */
  show(lines: readonly string[]): void;
  /** Puts everything back as it was. */
  close(): void;
}

/** Whether there is one to draw on. */
export function hasTerminal(): boolean {
  return process.stdout.isTTY;
}

/** How wide it is; undefined where there is none. */
export function terminalColumns(): number | undefined {
  return process.stdout.isTTY ? process.stdout.columns : undefined;
}

/** Takes the terminal over; `onKey` is told of keys, Ctrl-C among them as 'q', `onResize` of another size. */
export function openTerminal(onKey: (key: string) => void, onResize: () => void): Terminal {
  const { stdin, stdout } = process;
  const hasKeys = stdin.isTTY;
  const receive = (keys: Buffer): void => {
    for (const key of keys.toString()) onKey(key === CTRL_C ? 'q' : key);
  };
  const onSignal = (): void => onKey('q');
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  if (hasKeys) stdin.setRawMode(true).on('data', receive);
  for (const signal of signals) process.on(signal, onSignal);
  stdout.on('resize', onResize);
  print(ENTER);
  return {
    get columns() {
      return stdout.columns;
    },
    get rows() {
      return stdout.rows;
    },
    show: (lines) => {
      print(HOME + lines.map((line) => line + CLEAR_LINE).join('\r\n') + CLEAR_BELOW);
    },
    close: () => {
      print(LEAVE);
      for (const signal of signals) process.off(signal, onSignal);
      stdout.off('resize', onResize);
      if (hasKeys) stdin.setRawMode(false).off('data', receive).pause();
    },
  };
}
