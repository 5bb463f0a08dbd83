import preact from "@preact/preset-vite";
import { defineConfig } from "vite";

// The build lies in the Python package that serves it. `npm run dev` asks a control centre beside it.
export default defineConfig({
  plugins: [preact()],
  worker: { format: "es" },
  build: {
    outDir: "../src/daitn/oam/static",
    emptyOutDir: true,
    modulePreload: { polyfill: false },
    // No data: URLs, and no styles in scripts: the policy for contents allows files alone.
    assetsInlineLimit: 0,
  },
  server: { proxy: { "/api": process.env.DAITN_API ?? "http://127.0.0.1:7448" } },
});
