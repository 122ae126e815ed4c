// Screen readers hear an equation as its TeX source.
for (const equation of document.querySelectorAll("data.katex-src")) {
    equation.setAttribute("role", "math");
    equation.setAttribute("aria-label", equation.value);
}
