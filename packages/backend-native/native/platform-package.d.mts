/**
 * Writes the package that brings built C++ to this platform's users into `folder`, which is made: the engine, or the kernels of
 * the plugin in the folder `home`.
 */
export function layOutPlatformPackage(folder: string, home?: string): Promise<void>;
