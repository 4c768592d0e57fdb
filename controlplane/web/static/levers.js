// The console's buttons: each names the path it posts to. Why is asked for; who is the session's. The session's cookie goes
// by itself, and with it what only this page was told, so that no other site can press a button.
"use strict";

(() => {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-say]");
    if (!button) return;
    const why = prompt(button.textContent.trim() + ": why?");
    if (!why) return;
    const page = document.querySelector("meta[name=csrf]");
    button.disabled = true;
    try {
      const answer = await fetch(button.dataset.say, {
        method: "POST",
        headers: { "content-type": "application/json", "x-csrf-token": page.content },
        body: JSON.stringify({ who: page.dataset.who || "console", why }),
      });
      if (answer.status === 401) location.assign("/login");
      else if (!answer.ok) {
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
