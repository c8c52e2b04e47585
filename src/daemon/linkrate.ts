/** The rate of `vpn link NAME max=…`: written as in `--link` and as in the file, or `none`. */
import { RATE } from '../conf/values.ts';
import { UsageFailure } from '../report.ts';

/** Below this not even handshakes and reports pass in time (64 kbit/s, as in `--link`). */
const LEAST_RATE = 8_000;

/** Bytes per second; 0 for `none`. Throws a `UsageFailure`. */
export function parseLinkRate(text: string): number {
  if (text === 'none') return 0;
  const rate = Number(RATE.parse(text, `max "${text}"`));
  if (rate === 0 || rate >= LEAST_RATE) return rate;
  throw new UsageFailure(`max "${text}"`, 'below 64 kbit/s', 'give more, or none');
}
