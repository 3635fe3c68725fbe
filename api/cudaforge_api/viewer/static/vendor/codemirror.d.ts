export * from "../../../../web/libraries/codemirror.js";
