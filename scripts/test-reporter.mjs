// A vitest reporter for scripts/test.mjs: lists the skipped tests with their reasons and leaves the counts in the file
// that LLMX_TEST_COUNTS names.
import fs from 'node:fs';

export default class CountsReporter {
  onInit(vitest) {
    this.vitest = vitest;
  }

  /** What failed outside of a test case (a file that does not load, a hook, a stray rejection) is a failure too. */
  onTestRunEnd(modules, unhandledErrors) {
    const counts = { passed: 0, failed: unhandledErrors.length, skipped: 0 };
    const skipped = [];
    for (const module of modules) {
      counts.failed += module.errors().length > 0 ? 1 : 0;
      for (const suite of module.children.allSuites()) counts.failed += suite.errors().length > 0 ? 1 : 0;
      for (const test of module.children.allTests()) {
        const { state, note } = test.result();
        // A test that is still pending was cut off by a crash or a time limit.
        counts[state === 'pending' ? 'failed' : state]++;
        if (state === 'skipped') skipped.push({ title: `${module.relativeModuleId} > ${test.fullName}`, note });
      }
    }
    this.list(skipped);
    fs.writeFileSync(process.env.LLMX_TEST_COUNTS, JSON.stringify(counts));
  }

  list(skipped) {
    // Tests that -t leaves out are skipped without a note.
    const listed = this.vitest.config.testNamePattern ? skipped.filter(({ note }) => note) : skipped;
    if (listed.length === 0) return;
    console.log('\nSkipped:');
    for (const { title, note } of listed) console.log(`  ${title}: ${note ?? 'no reason given'}`);
  }
}
