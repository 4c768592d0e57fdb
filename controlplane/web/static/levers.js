// The console's buttons: each names the path it posts to. Who, why and the operator's token are asked for; the token is
// kept for as long as this tab is open, and nowhere else.
"use strict";

(() => {
  const kept = (key, question) => {
    const known = sessionStorage.getItem(key) || prompt(question) || "";
    if (known) sessionStorage.setItem(key, known);
    return known;
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-say]");
    if (!button) return;
    const why = prompt(button.textContent.trim() + ": why?");
    if (!why) return;
    const who = kept("who", "Who are you? It is kept with what you say.");
    const token = kept("token", "The operator's token (the file `token` in the state directory)");
    if (!who || !token) return;
    button.disabled = true;
    try {
      const answer = await fetch(button.dataset.say, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: "Bearer " + token },
        body: JSON.stringify({ who, why }),
      });
      if (answer.status === 401) sessionStorage.removeItem("token");
      if (!answer.ok) {
        const problem = await answer.json();
        alert(problem.title + (problem.detail ? ": " + problem.detail : ""));
      }
    } catch (error) {
      alert("The control plane does not answer: " + error);
    } finally {
      button.disabled = false;
    }
  });
})();
