/** Writes the package that brings the built engine to this platform's users into `folder`, which is made. */
export function layOutPlatformPackage(folder: string): Promise<void>;
