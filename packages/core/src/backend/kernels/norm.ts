import { floats, type Kernel } from './storage.ts';

interface NormAttributes {
  readonly epsilon: number;
  readonly center: boolean;
}

/** `LlmxNorm`: x [rows, width] to the output, and the mean and factor of each row, [rows, 1]. */
export const norm: Kernel = (storage, inputs, attributes) => {
  const { epsilon, center } = attributes as unknown as NormAttributes;
  const [rows, width] = inputs['x']!.shape as [number, number];
  const outputs = [storage.allocate([rows, width]), storage.allocate([rows, 1]), storage.allocate([rows, 1])];
  const [y, means, scales] = outputs.map((info) => floats(storage, info)) as [Float32Array, Float32Array, Float32Array];
  const [x, weight] = [floats(storage, inputs['x']), floats(storage, inputs['weight'])];
  const bias = inputs['bias'] === undefined ? new Float32Array(width) : floats(storage, inputs['bias']);
  for (let row = 0; row < rows; row++) {
    const start = row * width;
    let mean = 0;
    if (center) {
      for (let column = 0; column < width; column++) mean += x[start + column]!;
      mean /= width;
    }
    let squares = 0;
    for (let column = 0; column < width; column++) squares += (x[start + column]! - mean) ** 2;
    const scale = 1 / Math.sqrt(squares / width + epsilon);
    means[row] = mean;
    scales[row] = scale;
    for (let column = 0; column < width; column++)
      y[start + column] = (x[start + column]! - mean) * scale * weight[column]! + bias[column]!;
  }
  return outputs;
};

/** `LlmxNormGrad`: gradients of x [rows, width], weight [width] and bias [width]; `residual`, if given, is added to the first. */
export const normGrad: Kernel = (storage, inputs, attributes) => {
  const { center } = attributes as unknown as NormAttributes;
  const [rows, width] = inputs['dy']!.shape as [number, number];
  const outputs = [storage.allocate([rows, width]), storage.allocate([width]), storage.allocate([width])];
  const [dx, dWeight, dBias] = outputs.map((info) => floats(storage, info)) as [
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const [dy, x] = [floats(storage, inputs['dy']), floats(storage, inputs['x'])];
  const [means, scales] = [floats(storage, inputs['mean']), floats(storage, inputs['scale'])];
  const weight = floats(storage, inputs['weight']);
  const residual = inputs['residual'] && floats(storage, inputs['residual']);
  const [weightSums, biasSums] = [new Float64Array(width), new Float64Array(width)];
  for (let row = 0; row < rows; row++) {
    const start = row * width;
    const [mean, scale] = [means[row]!, scales[row]!];
    let [sum, along] = [0, 0];
    for (let column = 0; column < width; column++) {
      const [gradient, value] = [dy[start + column]!, (x[start + column]! - mean) * scale];
      weightSums[column]! += gradient * value;
      biasSums[column]! += gradient;
      sum += gradient * weight[column]!;
      along += gradient * weight[column]! * value;
    }
    const [meanGradient, meanAlong] = [center ? sum / width : 0, along / width];
    for (let column = 0; column < width; column++) {
      const gradient = dy[start + column]! * weight[column]!;
      const value = (x[start + column]! - mean) * scale;
      dx[start + column] = scale * (gradient - meanGradient - value * meanAlong) + (residual?.[start + column] ?? 0);
    }
  }
  dWeight.set(weightSums);
  dBias.set(biasSums);
  return outputs;
};
