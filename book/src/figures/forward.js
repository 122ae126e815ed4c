// The interactive figure of chapter 7: a slider through the forward process.
// Reads window.forwardProcess (forward-data.js, written by examples/ch07_forward.rs). No library, nothing fetched.
(function () {
    "use strict";

    var figure = document.getElementById("forward-process");
    var data = window.forwardProcess;
    if (!figure || !data || figure.getAttribute("data-ready")) {
        return; // the static picture stays
    }
    figure.setAttribute("data-ready", "yes");

    var SVG = "http://www.w3.org/2000/svg";
    var SIDE = 28;
    var LAST = data.linear.length - 1;
    var chosen = "linear";
    var index = Math.round(0.3 * LAST);

    // ---- the forward process, as src/diffusion/schedule.rs has it ----

    /// alpha, sigma and the log signal-to-noise ratio from log alpha_bar.
    function levels(logAlphaBar) {
        var alphaBar = Math.exp(logAlphaBar);
        var variance = -Math.expm1(logAlphaBar);
        return {
            alphaBar: alphaBar,
            alpha: Math.sqrt(alphaBar),
            sigma: Math.sqrt(Math.abs(variance)),
            lambda: variance > 0 ? logAlphaBar - Math.log(variance) : Infinity,
        };
    }

    /// x_t = alpha x_0 + sigma eps, number by number. (A2)
    function noised(x0, eps, now) {
        return x0.map(function (x, i) {
            return now.alpha * (x / 1000) + now.sigma * (eps[i] / 100);
        });
    }

    function left(snr) {
        return snr === Infinity ? "the image"
            : snr > 10 ? "the image, a little grainy"
            : snr > 1 ? "more image than noise"
            : snr > 0.1 ? "more noise than image"
            : snr > 0.001 ? "a shadow, if one knows where to look"
            : "noise";
    }

    function number(value, digits) {
        var text = value === Infinity ? "∞"
            : Math.abs(value) < 0.001 && value !== 0 ? value.toExponential(2)
            : value >= 1000 ? value.toFixed(0)
            : value.toFixed(digits);
        // 4.04e-5 as 4.04·10⁻⁵
        var power = text.replace(/e-(\d+)$/, function (all, digits) {
            return "·10⁻" + digits.replace(/\d/g, function (digit) { return "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]; });
        });
        return power.replace(/-/g, "−");
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

    var CSS = [
        "#forward-process .interactive { --fp-accent: var(--links, #20609f); color: var(--fg, currentColor); }",
        "#forward-process .fp-views { display: grid; grid-template-columns: 1fr 1fr; gap: 1em; max-width: 540px; margin: 0 auto; }",
        "#forward-process .fp-plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(250px, 100%), 1fr)); gap: 0.6em 1em; }",
        "#forward-process canvas, #forward-process svg { display: block; width: 100%; height: auto; }",
        "#forward-process canvas { image-rendering: pixelated; border-radius: 4px; }",
        "#forward-process .fp-points { border: 1px solid currentColor; border-radius: 4px; box-sizing: border-box; }",
        "#forward-process .fp-points path { stroke: currentColor; stroke-width: 0.085; stroke-linecap: round; fill: none; }",
        "#forward-process .fp-name { text-align: center; font-size: 0.85em; opacity: 0.85; margin: 0.3em 0 0; }",
        "#forward-process .fp-plots text { fill: currentColor; font-size: 13px; font-family: inherit; }",
        "#forward-process .fp-title { font-weight: 600; }",
        "#forward-process .fp-grid { stroke: currentColor; stroke-opacity: 0.2; fill: none; }",
        "#forward-process .fp-other { stroke: currentColor; stroke-opacity: 0.45; stroke-width: 1.5; stroke-dasharray: 5 4; fill: none; }",
        "#forward-process .fp-chosen { stroke: var(--fp-accent); stroke-width: 2.5; fill: none; }",
        "#forward-process .fp-at { stroke: var(--fp-accent); stroke-width: 1; }",
        "#forward-process .fp-marker { fill: var(--fp-accent); stroke: var(--bg, Canvas); stroke-width: 1.5; }",
        "#forward-process .fp-bar { display: flex; flex-wrap: wrap; gap: 0.4em 1.4em; align-items: center; margin: 1em 0 0.2em; }",
        "#forward-process fieldset { border: 0; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0.2em 1em; }",
        "#forward-process legend { float: left; padding: 0; margin-right: 1em; font-weight: 600; }",
        "#forward-process .fp-time { display: flex; flex: 1 1 16em; gap: 0.7em; align-items: center; font-weight: 600; }",
        "#forward-process input { accent-color: var(--fp-accent); }",
        "#forward-process input[type=range] { flex: 1; min-width: 8em; margin: 0.6em 0; }",
        "#forward-process input:focus-visible { outline: 3px solid var(--fp-accent); outline-offset: 3px; }",
        // as many lines as the longest takes, so that the page below does not jump
        "#forward-process .fp-say { margin: 0.3em 0 0.8em; min-height: 3.4em; font-variant-numeric: tabular-nums; }",
        "@media (max-width: 560px) { #forward-process .fp-say { min-height: 5em; } }",
    ];
    html("style", {}, figure, CSS.join("\n"));
    var fallback = figure.querySelector("img");
    if (fallback) {
        fallback.style.display = "none"; // print shows it again (theme/book.css)
    }
    var stage = html("div", { class: "interactive", role: "group", "aria-label": "A slider through the forward process" }, figure);

    var bar = html("div", { class: "fp-bar" }, stage);
    var choice = html("fieldset", {}, bar);
    html("legend", {}, choice, "Schedule");
    var radios = ["linear", "cosine"].map(function (name) {
        var label = html("label", {}, choice);
        var radio = html("input", { type: "radio", name: "fp-schedule", value: name }, label);
        html("span", {}, label, " " + name);
        radio.checked = name === chosen;
        return radio;
    });
    var time = html("label", { class: "fp-time" }, bar);
    html("span", {}, time, "Time t");
    var slider = html("input", { type: "range", min: "0", max: String(LAST), step: "1", value: String(index) }, time);
    var say = html("p", { class: "fp-say", role: "status", "aria-live": "polite" }, stage);

    var views = html("div", { class: "fp-views" }, stage);
    function view(words) {
        var place = html("div", {}, views);
        return function (node) {
            place.appendChild(node);
            html("p", { class: "fp-name" }, place, words);
            return node;
        };
    }
    var canvas = view("784 pixels")(document.createElement("canvas"));
    canvas.width = SIDE;
    canvas.height = SIDE;
    canvas.setAttribute("role", "img");
    var paper = canvas.getContext("2d");
    var plane = view("points of a plane")(document.createElementNS(SVG, "svg"));
    plane.setAttribute("class", "fp-points");
    plane.setAttribute("viewBox", "-3 -3 6 6");
    plane.setAttribute("role", "img");
    var dots = svg("path", {}, plane);

    // ---- the two plots ----

    var WIDTH = 340;
    var HEIGHT = 210;
    var BOX = { left: 40, right: WIDTH - 12, top: 30, bottom: HEIGHT - 26 };
    var plots = html("div", { class: "fp-plots" }, stage);

    function plot(title, low, high, ticks, value) {
        var root = svg("svg", { viewBox: "0 0 " + WIDTH + " " + HEIGHT, role: "img" }, plots);
        var x = function (i) {
            return BOX.left + (i / LAST) * (BOX.right - BOX.left);
        };
        var y = function (v) {
            var share = (Math.max(low, Math.min(high, v)) - low) / (high - low);
            return BOX.bottom - share * (BOX.bottom - BOX.top);
        };
        svg("text", { x: BOX.left, y: 18, class: "fp-title" }, root, title);
        ticks.forEach(function (tick) {
            svg("path", { class: "fp-grid", d: "M" + BOX.left + " " + y(tick).toFixed(1) + "H" + BOX.right }, root);
            svg("text", { x: BOX.left - 7, y: (y(tick) + 4).toFixed(1), "text-anchor": "end" }, root, number(tick, low < 0 ? 0 : 1));
        });
        [0, 0.5, 1].forEach(function (t) {
            svg("text", { x: x(t * LAST).toFixed(1), y: HEIGHT - 8, "text-anchor": "middle" }, root, t === 0.5 ? "t = 0.5" : String(t));
        });
        var curves = {};
        ["linear", "cosine"].forEach(function (name) {
            var points = data[name].map(function (log, i) {
                return x(i).toFixed(1) + " " + y(value(levels(log))).toFixed(1);
            });
            curves[name] = svg("path", { d: "M" + points.join("L") }, root);
        });
        var at = svg("path", { class: "fp-at" }, root);
        var marker = svg("circle", { class: "fp-marker", r: 6 }, root);
        return function (now) {
            Object.keys(curves).forEach(function (name) {
                curves[name].setAttribute("class", name === chosen ? "fp-chosen" : "fp-other");
            });
            var v = value(now);
            at.setAttribute("d", "M" + x(index).toFixed(1) + " " + BOX.bottom + "V" + BOX.top);
            marker.setAttribute("cx", x(index).toFixed(1));
            marker.setAttribute("cy", y(v).toFixed(1));
            root.setAttribute("aria-label", title + " of the " + chosen + " schedule: " + number(v, 3) + " at this time");
        };
    }

    var showAlphaBar = plot("ᾱ(t), what is left of the image", 0, 1, [0, 0.5, 1], function (now) {
        return now.alphaBar;
    });
    var showLambda = plot("λ(t), the log of the SNR", -20, 10, [-20, -10, 0, 10], function (now) {
        return now.lambda;
    });

    // ---- showing time t ----

    function showDigit(now) {
        var values = noised(data.digit, data.digitNoise, now);
        var image = paper.createImageData(SIDE, SIDE);
        values.forEach(function (value, i) {
            var shade = Math.round((Math.max(-1, Math.min(1, value)) + 1) * 127.5);
            image.data[4 * i] = image.data[4 * i + 1] = image.data[4 * i + 2] = shade;
            image.data[4 * i + 3] = 255;
        });
        paper.putImageData(image, 0, 0);
    }

    function showPoints(now) {
        var values = noised(data.points, data.pointNoise, now);
        var path = "";
        for (var i = 0; i < values.length; i += 2) {
            // upwards is minus in SVG
            path += "M" + values[i].toFixed(2) + " " + (-values[i + 1]).toFixed(2) + "h0";
        }
        dots.setAttribute("d", path);
    }

    function show() {
        var now = levels(data[chosen][index]);
        var snr = Math.exp(now.lambda);
        var t = (index / LAST).toFixed(3);
        slider.setAttribute("aria-valuetext", "t = " + t);
        var words =
            "t = " + t + ": ᾱ = " + number(now.alphaBar, 4) + ", SNR = " + number(snr, 3) + ", λ = " + number(now.lambda, 2) +
            ", α = " + number(now.alpha, 4) + ", σ = " + number(now.sigma, 4) + ". What one sees: " + left(snr) + ".";
        say.textContent = words.replace(/ = /g, "\u00a0=\u00a0");
        canvas.setAttribute("aria-label", "A handwritten seven at t = " + t + ": " + left(snr));
        plane.setAttribute("aria-label", "Points of a spiral at t = " + t + ": " + left(snr));
        showDigit(now);
        showPoints(now);
        showAlphaBar(now);
        showLambda(now);
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
    show();
})();
