import { defineConfig } from "vite";

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
    rollupOptions: {
      output: { banner: "/*! unvanish viewer, Apache-2.0. Bundles ECharts and others: see THIRD_PARTY.txt */" },
    },
  },
  define: { "process.env.NODE_ENV": JSON.stringify("production") },
});
