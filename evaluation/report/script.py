"""The only script of the report: filters of the gallery, and everything opened before it is printed.

It holds neither `<` nor an ampersand, so that the page stays well-formed XML.
"""

SCRIPT = """
(function () {
  "use strict";
  var form = document.getElementById("filters");
  if (form) {
    var cards = Array.prototype.slice.call(document.querySelectorAll("[data-rank]"));
    var shown = document.getElementById("shown");
    var apply = function () {
      var count = 0;
      cards.forEach(function (card) {
        var fits = ["kind", "bucket", "rank"].every(function (name) {
          var wanted = form.elements[name].value;
          return wanted === "" || card.getAttribute("data-" + name) === wanted;
        });
        card.hidden = !fits;
        count += fits ? 1 : 0;
      });
      shown.textContent = count + " of " + cards.length + " shown" + (count ? "" : ": no such object was chosen");
    };
    form.hidden = false;
    form.addEventListener("change", apply);
    form.addEventListener("submit", function (event) { event.preventDefault(); });
    form.addEventListener("reset", function () { window.setTimeout(apply, 0); });
    apply();
  }
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (part) { part.open = true; });
  });
})();
"""
