/** What is wrong with a configuration file: collected, so that all of it is told at once. */
import { Failure } from '../report.ts';

export interface Problem {
  readonly severity: 'error' | 'warning';
  /** 0: of the file as a whole, or of the command line. */
  readonly line: number;
  /** `FILE:LINE: WHAT: WHY; WHAT TO DO`, in the words of report.ts. */
  readonly text: string;
}

/** The problems of one file. Values of secret keys are never part of them. */
export class Problems {
  readonly file: string;
  private readonly found: Problem[] = [];

  constructor(file: string) {
    this.file = file;
  }

  /** `why` and `remedy` may be empty, as in a `Failure`. */
  error(line: number, what: string, why: string, remedy: string): void {
    this.add('error', line, what, why, remedy);
  }

  warn(line: number, what: string, why: string, remedy: string): void {
    this.add('warning', line, what, why, remedy);
  }

  /** An error that was thrown; anything but a `Failure` is thrown on. */
  caught(line: number, error: unknown): void {
    if (!(error instanceof Failure)) throw error;
    this.error(line, error.message, '', '');
  }

  /** In the order of the lines. */
  all(): readonly Problem[] {
    return this.found.toSorted((a, b) => a.line - b.line);
  }

  hasErrors(): boolean {
    return this.found.some(({ severity }) => severity === 'error');
  }

  private add(
    severity: Problem['severity'],
    line: number,
    what: string,
    why: string,
    remedy: string,
  ): void {
    const place = line === 0 ? this.file : `${this.file}:${line}`;
    const text = new Failure(`${place}: ${what}`, why, remedy).message;
    this.found.push({ severity, line, text });
  }
}
