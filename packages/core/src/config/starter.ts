/** Text of the commented configuration that `llmx init` writes; it trains once there is a dataset at `dataset`. */
export const starterConfig = (dataset: string): string => `# Configuration of an llmx run. Train it with: llmx train
# Every setting can be changed for one run with --set, e.g. --set optimizer.lr=0.003
# "llmx config show" prints this file with every default filled in; "llmx components" lists what can be chosen.

# Packages or ./files that bring further architectures, blocks, objectives, optimizers, ...
plugins: []

data:
  train: ${JSON.stringify(dataset)} # a dataset made by "llmx data prepare"; its val split is used for evaluation
  # packing: documents # documents in one window do not see each other (default: stream)

model:
  architecture: decoder
  dModel: 128
  contextLength: 256 # tokens per window
  # A pattern of blocks: entries in order, each repeated. Settings given here for all blocks may stand beside dModel.
  blocks:
    - { block: attention, repeat: 4, heads: 4 }

objective: { name: next-token }

optimizer: { name: adamw, lr: 0.001, beta1: 0.9, beta2: 0.95, weightDecay: 0.1 }

# Multiplier of the learning rate. Lengths are steps (50), tokens (2Mtok) or a share of the run (5%).
schedule: { name: cosine, warmup: 50 }

train:
  steps: 500
  batchSize: 16 # windows per forward pass
  gradAccumulation: 1 # forward passes per step
  gradClip: 1.0 # largest norm of the gradients; 0 is off
  evalEvery: 100 # 0 is off
  checkpointEvery: 100 # 0 writes only the last checkpoint
  seed: 1

backend: auto # the fastest that works here; "llmx doctor" explains
precision: fp32
`;
