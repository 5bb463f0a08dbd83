// What types do not say: promises that nobody waits for, values of any kind, effects that miss a change, buttons that
// Enter presses.
import js from "@eslint/js";
import hooks from "eslint-plugin-react-hooks";
import { defineConfig, globalIgnores } from "eslint/config";
import typescript from "typescript-eslint";

export default defineConfig(
  globalIgnores(["src/api/schema.ts"]),
  js.configs.recommended,
  {
    files: ["*.{js,ts}", "scripts/*.mjs"],
    languageOptions: { globals: { console: "readonly", process: "readonly", URL: "readonly" }, parser: typescript.parser },
  },
  {
    files: ["src/**/*.{ts,tsx}"],
    extends: [typescript.configs.strictTypeChecked, typescript.configs.stylisticTypeChecked],
    plugins: { "react-hooks": hooks },
    languageOptions: { parserOptions: { projectService: true } },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      // The plugin's other rules are about React's compiler.
      "react-hooks/rules-of-hooks": "error",
      "react-hooks/exhaustive-deps": "error",
      "no-restricted-syntax": ["error", {
        selector: "JSXOpeningElement[name.name='button']:not(:has(> JSXAttribute[name.name='type']))",
        message: "State its type: without one, Enter in a text field presses it.",
      }],
      "@typescript-eslint/consistent-type-definitions": ["error", "type"],
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      "@typescript-eslint/no-empty-function": ["error", { allow: ["arrowFunctions"] }],
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      // `get<Site>(path)` says what a path is answered with.
      "@typescript-eslint/no-unnecessary-type-parameters": "off",
      // The compiler takes every index for one that may be out of range; `!` stands where it cannot be.
      "@typescript-eslint/no-non-null-assertion": "off",
      // What has a default by the API's description may be left out of an answer.
      "@typescript-eslint/no-unnecessary-condition": "off",
      "@typescript-eslint/no-useless-default-assignment": "off",
    },
  },
);
