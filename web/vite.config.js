import { defineConfig } from "vite";

const NOTICE =
  "/*! unvanish viewer (Apache-2.0), with Apache ECharts (Apache-2.0, The Apache Software Foundation), " +
  "ZRender (BSD-3-Clause, Baidu Inc.) and tslib (0BSD, Microsoft); texts in THIRD_PARTY.txt */\n";

// One script and one style sheet, committed in the package: whoever only writes Python never needs Node.
export default defineConfig({
  build: {
    target: "es2021",
    outDir: "../src/unvanish/present/assets",
    emptyOutDir: false, // the licences of what is bundled lie there too
    cssCodeSplit: false,
    chunkSizeWarningLimit: 1500,
    lib: {
      entry: "src/main.ts",
      formats: ["iife"],
      name: "UnvanishViewer",
      fileName: () => "viewer.js",
      cssFileName: "viewer",
    },
  },
  plugins: [
    {
      // the minifier drops comments, and every page carries this script: it names whose work is in it
      name: "notice",
      generateBundle(_, bundle) {
        for (const part of Object.values(bundle)) if (part.type === "chunk") part.code = NOTICE + part.code;
      },
    },
  ],
  define: { "process.env.NODE_ENV": JSON.stringify("production") },
});
