/**
 * Preloaded into an end that is profiled: each function of the addon is called through one of this
 * file, because V8 books the time of native code to the JavaScript function that called it.
 */
type Call = (...values: readonly unknown[]) => unknown;

const load = process.dlopen.bind(process);

process.dlopen = (module: object, path: string, flags?: number): void => {
  if (flags === undefined) load(module, path);
  else load(module, path, flags);
  const loaded = module as { exports: Record<string, Call> };
  if (!('tunRead' in loaded.exports)) return;
  const functions = Object.entries(loaded.exports);
  loaded.exports = {
    ...Object.fromEntries(functions.map(([name, call]) => [name, wrap(call)])),
    // The profile is written at the end, by whoever runs then, into a folder of root's.
    confine: () => undefined,
  };
};

function wrap(call: Call): Call {
  // Ten arguments are the most that any function of the addon has; more than it has, it ignores.
  return (a, b, c, d, e, f, g, h, i, j) => call(a, b, c, d, e, f, g, h, i, j);
}
