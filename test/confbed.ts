/** Configuration files as text, for tests. */
import { parseIni } from '../src/conf/ini.ts';
import type { Section } from '../src/conf/ini.ts';
import { Problems } from '../src/conf/problem.ts';
import { effectiveSettings, mayDecode } from '../src/conf/settings.ts';
import type { Override, Settings } from '../src/conf/settings.ts';

export const FILE = 'home.conf';

export function sectionsOf(text: string, problems: Problems): readonly Section[] {
  return parseIni(new TextEncoder().encode(text), mayDecode, problems);
}

export interface Outcome {
  readonly settings: Settings | undefined;
  /** `error: …` and `warning: …`, in the order of the lines. */
  readonly told: readonly string[];
}

export function outcomeOf(text: string, overrides: readonly Override[] = []): Outcome {
  const problems = new Problems(FILE);
  const settings = effectiveSettings(sectionsOf(text, problems), overrides, problems);
  const told = problems.all().map(({ severity, text: line }) => `${severity}: ${line}`);
  return { settings, told };
}

/** The settings of a file without errors. */
export function settingsOf(text: string, overrides: readonly Override[] = []): Settings {
  const { settings, told } = outcomeOf(text, overrides);
  if (settings === undefined) throw new Error(told.join('\n'));
  return settings;
}
