/** Patterns over parameter paths: a path, in which `*` stands for any text. */
export interface PathPatterns {
  matches(path: string): boolean;
  /** The first pattern that matches none of `paths`. */
  idle(paths: readonly string[]): string | undefined;
}

const toRegExp = (pattern: string): RegExp =>
  new RegExp(
    `^${pattern
      .split('*')
      .map((part) => part.replaceAll(/[\\^$.*+?()[\]{}|]/gu, String.raw`\$&`))
      .join('.*')}$`,
    'u',
  );

export function pathPatterns(patterns: readonly string[]): PathPatterns {
  const compiled = patterns.map(toRegExp);
  return {
    matches: (path) => compiled.some((pattern) => pattern.test(path)),
    idle: (paths) => patterns.find((_, index) => !paths.some((path) => compiled[index]!.test(path))),
  };
}
