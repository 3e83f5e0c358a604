import { createJiti } from 'jiti';

/**
 * The default export of a JavaScript or TypeScript file, which needs no build step; `undefined` where it has none.
 * `virtual` are modules that the file and what it imports get under these names, wherever it lies.
 */
export async function importModule(file: string, virtual: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
  // No cache on disk, so that nothing is left behind; no native import, which would pass by the virtual modules.
  const jiti = createJiti(file, { fsCache: false, tryNative: false, virtualModules: { ...virtual } });
  const module: object = await jiti.import(file);
  return 'default' in module ? module.default : undefined;
}
