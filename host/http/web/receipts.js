// The receipts of the customer's pods, in this browser and as files.
import { $, element } from '/shared.js';

const ANSWERS = { access: 'bought', top_up: 'more time', refusal: 'refunded', stop: 'stopped', lost: 'ended, paid back' };
/** How many receipts this browser stores: each has at most some kilobytes, and a page has some megabytes. */
const RECEIPTS = 100;

/** Stores the receipt of the latest answer, and offers it as a file by this link. */
export function offerReceipt(link, receipt) {
  if (!receipt) return;
  linkReceipt(link, receipt);
  storeReceipt(receipt);
}

function linkReceipt(link, receipt) {
  if (link.href) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([JSON.stringify(receipt)], { type: 'application/json' }));
  link.download = `receipt-${receipt.id}.json`;
  link.hidden = false;
}

/** The receipts in this browser, the oldest first. */
function storedReceipts() {
  return JSON.parse(localStorage.getItem('paygress.receipts') || '[]');
}

/** Stores a receipt, if it is not there. Of too many, and where there is no room, the oldest are removed. */
export function storeReceipt(receipt) {
  const receipts = storedReceipts();
  if (receipts.some(({ id }) => id === receipt.id)) return;
  receipts.push(receipt);
  for (let kept = receipts.slice(-RECEIPTS); kept.length; kept = kept.slice(1)) {
    try {
      localStorage.setItem('paygress.receipts', JSON.stringify(kept));
      return showReceipts();
    } catch {
      // There is no room for so many.
    }
  }
}

export function showReceipts() {
  const receipts = storedReceipts();
  $('receipts').hidden = !receipts.length;
  for (const link of $('receipt-list').querySelectorAll('a')) URL.revokeObjectURL(link.href);
  $('receipt-list').replaceChildren(...receipts.map((receipt) => {
    const { answer, pod_name: pod } = JSON.parse(receipt.content);
    const time = new Date(receipt.created_at * 1000).toISOString();
    const link = element('a', `${pod}: ${ANSWERS[answer] || answer}, ${time.slice(0, 10)} ${time.slice(11, 16)} UTC`);
    linkReceipt(link, receipt);
    const item = element('li');
    item.append(link);
    return item;
  }));
}
