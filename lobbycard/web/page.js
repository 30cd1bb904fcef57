// Pasting and dropping work anywhere on the page, and what changed is said to screen readers.
(() => {
  const field = () => [...document.querySelectorAll('#drop input[type=file], #drops input[type=file]')].find(f => f.closest('.tabitem')?.offsetParent)
  const hand = files => {
    const to = field(), pictures = [...files].filter(file => file.type.startsWith('image/') || /\.(jpe?g|png|webp|gif|avif|bmp)$/i.test(file.name))
    if (!to || !pictures.length) return false
    const carried = new DataTransfer()
    for (const file of to.multiple ? pictures : pictures.slice(0, 1)) carried.items.add(file)
    to.files = carried.files
    to.dispatchEvent(new Event('change', {bubbles: true}))
    return true
  }
  addEventListener('paste', event => {
    if (event.clipboardData?.files.length && hand(event.clipboardData.files)) { event.preventDefault(); event.stopImmediatePropagation() }
  }, true)
  const inside = event => event.target.closest?.('#drop, #drops')
  addEventListener('dragover', event => { if (!inside(event)) event.preventDefault(); document.body.classList.add('lc-over') })
  addEventListener('dragleave', event => { if (!event.relatedTarget) document.body.classList.remove('lc-over') })
  addEventListener('drop', event => {
    document.body.classList.remove('lc-over')
    if (!inside(event) && event.dataTransfer?.files.length) { event.preventDefault(); hand(event.dataTransfer.files) }
  })
  const listen = () => {
    const voice = document.createElement('div')
    voice.className = 'lc-hidden'
    voice.setAttribute('role', 'status')
    document.body.append(voice)
    let said = '', problem = null
    new MutationObserver(() => {
      const now = [...document.querySelectorAll('.announce')].filter(p => p.closest('.tabitem')?.offsetParent).map(p => p.textContent).join(' ')
      if (now !== said) voice.textContent = said = now
      const wrong = document.querySelector('#answer .problem')
      if (wrong && wrong !== problem) wrong.scrollIntoView({block: 'nearest'})
      problem = wrong
    }).observe(document.body, {childList: true, subtree: true})
  }
  document.body ? listen() : addEventListener('DOMContentLoaded', listen)
})()
