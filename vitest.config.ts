import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['packages/*/src/**/*.{test,test-prop}.ts', 'tests/**/*.{test,test-prop}.ts'],
    // Generous: machines are shared, and many tests start processes.
    testTimeout: 90_000,
    hookTimeout: 90_000,
    setupFiles: ['tests/support/native-backend.ts'],
    // On with --typecheck, which scripts/test.mjs passes.
    typecheck: {
      include: ['packages/*/src/**/*.test-d.ts', 'tests/**/*.test-d.ts'],
      checker: './node_modules/typescript-7/bin/tsc',
      tsconfig: './tsconfig.json',
      // Errors elsewhere are the type check's to report.
      ignoreSourceErrors: true,
    },
  },
});
