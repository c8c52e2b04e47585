export interface PackageParts {
  /** The folder of package.json. */
  readonly root: string;
  readonly executable: string;
  /** What it loads beside itself. */
  readonly natives: readonly string[];
  /** Where the package is put, and where LICENSES is. */
  readonly output: string;
}

/** Returns the path of the package. Throws an `Error` of one line. */
export function makePackage(parts: PackageParts): string;
