export * from "../../../../web/libraries/plot.js";
