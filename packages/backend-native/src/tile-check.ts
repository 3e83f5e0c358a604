import type { InstructionSet, Library, NativeTensor } from './library.ts';

/** Rows, columns, length of the sums; whether operands are transposed. Whole tiles and parts, more than one task, one and two blocks. */
const PRODUCTS = [
  { lengths: [33, 40, 100], transposed: 0 },
  { lengths: [33, 17, 800], transposed: 1 },
] as const;
type Product = (typeof PRODUCTS)[number];

/** Integers of 5 bits: products and sums are exact in any order. */
const integers = (length: number, seed: number): Float32Array =>
  Float32Array.from({ length }, (_, index) => (((index + seed) * 7919) % 31) - 15);

/** The product at an instruction set, with operands in bfloat16. */
function multiply(library: Library, level: InstructionSet, { lengths, transposed }: Product): Float32Array {
  const [m, n, k] = lengths;
  const [a, b, product] = [integers(m * k, 1), integers(k * n, 2), new Float32Array(m * n)];
  const tensor = (values: Float32Array): NativeTensor => ({
    address: library.addressOf(values.buffer as ArrayBuffer),
    size: values.length,
    dtype: 'float32',
    shape: [values.length],
  });
  library.setInstructionSet(level);
  const tensors = [tensor(a), tensor(b), undefined, undefined, undefined, tensor(product), undefined];
  library.run('LlmxMatmul', tensors, [1, ...lengths, transposed, transposed, 0, 0, 0, 1]);
  return product;
}

const checked = new WeakSet<Library>();

/**
 * Before tile registers (`amx`) are used for the first time: a few products on the library's threads must be the reference's to
 * the last bit; else the library uses the level below.
 */
export function checkTiles(library: Library): void {
  if (library.instructionSet !== 'amx' || checked.has(library)) return;
  checked.add(library);
  const agree = PRODUCTS.every((product) => {
    const expected = multiply(library, 'reference', product);
    return multiply(library, 'amx', product).every((value, index) => value === expected[index]);
  });
  library.setInstructionSet('amx');
  if (!agree) library.distrust('amx', 'its products differ from the reference kernel');
}
