// The interactive figure of chapter 14: guidance weight and thresholding.
// Reads window.guidanceAndThreshold (guidance-data.js) and the static picture, both from examples/ch14_thresholding.rs. No library,
// nothing fetched.
(function () {
    "use strict";

    var figure = document.getElementById("guidance-and-threshold");
    var data = window.guidanceAndThreshold;
    var sheet = figure && figure.querySelector("img");
    if (!figure || !data || !sheet || figure.getAttribute("data-ready")) {
        return; // the static picture stays
    }
    figure.setAttribute("data-ready", "yes");

    var SVG = "http://www.w3.org/2000/svg";
    var SIDE = 28;
    // where the digits are in the static picture: gaps between them, and between the groups
    var GAP = 2;
    var GROUP_GAP = 12;
    var KINDS = ["none", "static", "dynamic"];
    var DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    var chosen = "none";
    var index = 2;

    function run(kind, i) {
        return data.runs[KINDS.indexOf(kind) * data.weights.length + i];
    }

    function number(value, digits) {
        return value.toFixed(digits).replace("-", "−");
    }

    function percent(share) {
        return number(100 * share, share > 0 && share < 0.1 ? 1 : 0) + "\u00a0%";
    }

    // ---- the page ----

    function made(node, attributes, parent, words) {
        Object.keys(attributes).forEach(function (key) {
            node.setAttribute(key, attributes[key]);
        });
        if (words !== undefined) {
            node.textContent = words;
        }
        parent.appendChild(node);
        return node;
    }

    function html(name, attributes, parent, words) {
        return made(document.createElement(name), attributes, parent, words);
    }

    function svg(name, attributes, parent, words) {
        return made(document.createElementNS(SVG, name), attributes, parent, words);
    }

    var HERE = "#guidance-and-threshold ";
    var CSS = [
        HERE + ".interactive { --gt-accent: var(--links, #20609f); color: var(--fg, currentColor); }",
        HERE + "canvas, " + HERE + "svg { display: block; width: 100%; height: auto; }",
        HERE + "canvas { image-rendering: pixelated; border-radius: 4px; max-width: 700px; margin: 0 auto; }",
        HERE + ".gt-plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(250px, 100%), 1fr)); gap: 0.6em 1em; margin-top: 0.8em; }",
        HERE + ".gt-plots text { fill: currentColor; font-size: 13px; font-family: inherit; }",
        HERE + ".gt-title { font-weight: 600; }",
        HERE + ".gt-grid { stroke: currentColor; stroke-opacity: 0.2; fill: none; }",
        HERE + ".gt-other { stroke: currentColor; stroke-opacity: 0.45; stroke-width: 1.5; stroke-dasharray: 5 4; fill: none; }",
        HERE + ".gt-chosen { stroke: var(--gt-accent); stroke-width: 2.5; fill: none; }",
        HERE + ".gt-bars { fill: var(--gt-accent); }",
        HERE + ".gt-bar { display: flex; flex-wrap: wrap; gap: 0.4em 1.4em; align-items: center; margin: 1em 0 0.2em; }",
        HERE + "fieldset { border: 0; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0.2em 1em; }",
        HERE + "legend { float: left; padding: 0; margin-right: 1em; font-weight: 600; }",
        HERE + ".gt-weight { display: flex; flex: 1 1 16em; gap: 0.7em; align-items: center; font-weight: 600; }",
        HERE + ".gt-weight output { min-width: 3.6em; font-variant-numeric: tabular-nums; }",
        HERE + "input { accent-color: var(--gt-accent); }",
        HERE + "input[type=range] { flex: 1; min-width: 8em; margin: 0.6em 0; }",
        HERE + "input:focus-visible { outline: 3px solid var(--gt-accent); outline-offset: 3px; }",
        // as many lines as the longest takes, so that the page below does not jump
        HERE + ".gt-say { margin: 0.3em 0 0.8em; min-height: 3.4em; font-variant-numeric: tabular-nums; }",
        "@media (max-width: 560px) { " + HERE + ".gt-say { min-height: 6.8em; } }",
    ];
    html("style", {}, figure, CSS.join("\n"));
    sheet.style.display = "none"; // print shows it again (theme/book.css)
    var stage = html("div", { class: "interactive", role: "group", "aria-label": "Guidance weight and thresholding" }, figure);

    var bar = html("div", { class: "gt-bar" }, stage);
    var choice = html("fieldset", {}, bar);
    html("legend", {}, choice, "Thresholding");
    var radios = KINDS.map(function (kind) {
        var label = html("label", {}, choice);
        var radio = html("input", { type: "radio", name: "gt-kind", value: kind }, label);
        html("span", {}, label, " " + kind);
        radio.checked = kind === chosen;
        return radio;
    });
    var weight = html("label", { class: "gt-weight" }, bar);
    html("span", {}, weight, "Weight");
    var slider = html("input", { type: "range", min: "0", max: String(data.weights.length - 1), step: "1", value: String(index) }, weight);
    var shown = html("output", {}, weight);
    var say = html("p", { class: "gt-say", role: "status", "aria-live": "polite" }, stage);
    var canvas = html("canvas", { role: "img", width: String(5 * (SIDE + GAP) - GAP), height: String(2 * (SIDE + GAP) - GAP) }, stage);
    var paper = canvas.getContext("2d");
    paper.imageSmoothingEnabled = false;

    // ---- the two plots ----

    var WIDTH = 340;
    var HEIGHT = 200;
    var BOX = { left: 48, right: WIDTH - 12, top: 30, bottom: HEIGHT - 26 };
    var plots = html("div", { class: "gt-plots" }, stage);

    function plot(title, ticks, y, labels) {
        var root = svg("svg", { viewBox: "0 0 " + WIDTH + " " + HEIGHT, role: "img" }, plots);
        svg("text", { x: 4, y: 18, class: "gt-title" }, root, title);
        ticks.forEach(function (tick) {
            svg("path", { class: "gt-grid", d: "M" + BOX.left + " " + y(tick[0]).toFixed(1) + "H" + BOX.right }, root);
            svg("text", { x: BOX.left - 7, y: (y(tick[0]) + 4).toFixed(1), "text-anchor": "end" }, root, tick[1]);
        });
        labels.forEach(function (label) {
            svg("text", { x: label[0].toFixed(1), y: HEIGHT - 8, "text-anchor": "middle" }, root, label[1]);
        });
        return root;
    }

    function across(share) {
        return BOX.left + share * (BOX.right - BOX.left);
    }

    function logarithmic(low, high) {
        return function (value) {
            var share = Math.log(Math.max(value, low) / low) / Math.log(high / low);
            return BOX.bottom - share * (BOX.bottom - BOX.top);
        };
    }

    var highest = Math.max.apply(null, data.runs.map(function (each) { return Math.max.apply(null, each.percentiles); }));
    var upPercentile = logarithmic(0.8, Math.max(1.1 * highest, 11));
    var percentiles = plot("99.5 % of |x̂₀| before thresholding are below", [[1, "1"], [3, "3"], [10, "10"]], upPercentile, [
        [across(0), "t = 1"], [across(0.5), "0.5"], [across(1), "0"],
    ]);
    var lines = KINDS.map(function () { return svg("path", {}, percentiles); });

    var upShare = logarithmic(0.001, 1);
    var histogram = plot("Pixels of the images, by brightness", [[1, "100 %"], [0.1, "10 %"], [0.01, "1 %"]], upShare, [
        [across(0), "−1"], [across(0.5), "0"], [across(1), "1"],
    ]);
    var bars = svg("path", { class: "gt-bars" }, histogram);

    // ---- showing a weight ----

    function showDigits() {
        var group = KINDS.indexOf(chosen);
        var width = DIGITS.length * (SIDE + GAP) + GAP;
        var left = GROUP_GAP + group * (width + GROUP_GAP) + GAP;
        var top = GROUP_GAP + GAP + index * (SIDE + GAP);
        paper.clearRect(0, 0, canvas.width, canvas.height);
        DIGITS.forEach(function (digit, i) {
            var x = (i % 5) * (SIDE + GAP);
            var y = Math.floor(i / 5) * (SIDE + GAP);
            paper.drawImage(sheet, left + i * (SIDE + GAP), top, SIDE, SIDE, x, y, SIDE, SIDE);
        });
    }

    function show() {
        var now = run(chosen, index);
        var w = data.weights[index];
        shown.textContent = "w = " + w;
        slider.setAttribute("aria-valuetext", "w = " + w);
        var words =
            "w = " + w + ", " + (chosen === "none" ? "no thresholding" : chosen + " thresholding") + ". Before thresholding, 99.5\u00a0% of |x̂₀| were below " +
            number(now.percentiles[0], 2) + " in the first step and below " + number(now.percentiles[now.percentiles.length - 1], 2) +
            " in the last. Images: mean " + number(now.ink, 2) + ", greys " + percent(now.greys) + ", judged right " + now.right + " of 10.";
        say.textContent = words.replace(/ = /g, "\u00a0=\u00a0");
        canvas.setAttribute("aria-label", "Ten digits, zero to nine, drawn with w = " + w + " and thresholding " + chosen);
        showDigits();
        KINDS.forEach(function (kind, k) {
            var points = run(kind, index).percentiles.map(function (value, i) {
                return across(1 - data.times[i]).toFixed(1) + " " + upPercentile(value).toFixed(1);
            });
            lines[k].setAttribute("d", "M" + points.join("L"));
            lines[k].setAttribute("class", kind === chosen ? "gt-chosen" : "gt-other");
        });
        percentiles.setAttribute("aria-label", "The percentile of x̂₀ over time: " + number(now.percentiles[0], 2) + " at t = 1");
        var path = "";
        now.bins.forEach(function (share, i) {
            var step = (BOX.right - BOX.left) / now.bins.length;
            var top = upShare(share);
            path += "M" + (BOX.left + i * step + 1).toFixed(1) + " " + BOX.bottom + "V" + top.toFixed(1) + "h" + (step - 2).toFixed(1) + "V" + BOX.bottom + "z";
        });
        bars.setAttribute("d", path);
        histogram.setAttribute("aria-label", "Shares of the brightnesses: black " + percent(now.bins[0]) + ", white " + percent(now.bins[now.bins.length - 1]));
    }

    slider.addEventListener("input", function () {
        index = Number(slider.value);
        show();
    });
    radios.forEach(function (radio) {
        radio.addEventListener("change", function () {
            if (radio.checked) {
                chosen = radio.value;
                show();
            }
        });
    });
    stage.addEventListener("keydown", function (event) {
        if (/^Arrow/.test(event.key)) {
            event.stopPropagation(); // mdBook turns pages with the arrow keys
        }
    });
    if (!sheet.complete) {
        sheet.addEventListener("load", showDigits);
    }
    show();
})();
