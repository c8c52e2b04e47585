/** Bytes that are almost right, for tests of whoever reads them. */
import type { Random } from './random.ts';

export function randomBytes(random: Random, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  random.fill(bytes);
  return bytes;
}

/** One of `seeds`, changed by flipping, cutting, lengthening, splicing; or nothing but noise. */
export function mutated(random: Random, seeds: readonly Uint8Array[]): Uint8Array {
  let bytes: Uint8Array = seeds[random.below(seeds.length)].slice();
  for (let changes = 1 + random.below(3); changes > 0; changes--) {
    const kind = random.below(7);
    if (kind === 0) bytes = randomBytes(random, random.below(200));
    else if (kind === 1) bytes = bytes.slice(0, random.below(bytes.length + 1));
    else if (kind === 2)
      bytes = Uint8Array.from([...bytes, ...randomBytes(random, random.below(64))]);
    else if (kind === 3)
      bytes.set(seeds[random.below(seeds.length)].subarray(0, bytes.length).subarray(0, 40));
    else if (bytes.length > 0) bytes[random.below(bytes.length)] ^= 1 << random.below(8);
  }
  return bytes;
}
