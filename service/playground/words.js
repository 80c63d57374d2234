// Every word of the page, in English and Chinese.

const WORDS = {
  en: {
    playground: "playground", skip: "Skip to the answers", apiDocs: "API", language: "中文", languageName: "切换到中文",
    theme: "Theme", themes: { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" },
    keyNeeded: "This service wants an API key (kept for this tab only)", useKey: "Use it",
    user: "User", userId: "User id", open: "Open", invent: "Invent a user", inventCold: "Invent a cold user",
    forget: "Forget this user", history: "History", noHistory: "No events yet: a cold start. Ask, or add items below.",
    addItem: "Add to the history", findItems: "Find items", becomes: "A click adds a", newest: "newest last",
    click: "click", cart: "cart", purchase: "purchase", favorite: "favorite",
    question: "Question", recommend: "Recommend", search: "Search", ask: "Ask", query: "In words",
    compare: "Side by side", settings: "Settings", settingsOf: (name) => `Settings ${name}`, k: "Items (k)", beamWidth: "Beams",
    scene: "Scene", none: "none", profile: "Profile", asStored: "as stored", model: "Version",
    active: "active", seen: "Leave out", seens: { "": "as deployed", nothing: "nothing", purchased: "what was bought", history: "all of the history" },
    filters: "Filters", addFilter: "Add a filter", attribute: "Attribute", test: "Test", value: "Value", remove: "Remove",
    excluded: "Excluded", exclude: "Exclude", include: "Allow again",
    items: "Items", nothing: "Nothing to show yet.", noItems: "No item is eligible.",
    score: "score", sources: { model: "model", profile: "profile only", popular: "popular", popular_in_scene: "popular here" },
    answeredBy: (version, ms) => `answered by ${version} in ${ms} ms`, because: (reason) => `because: ${reason}`,
    eligible: (n) => `${n} eligible items`, used: (n) => `${n} events in the prompt`,
    beam: "The beam", beamHelp: "Each column is one level of the SID: a code's bar is its probability given its parent. Point at a code, or walk with the arrow keys.",
    noBeam: "The model did not answer, so there is no beam to draw. Give this user a history: click an item, or", kept: "kept", dropped: "outscored", ineligible: "barred by eligibility",
    keptOf: (n, of) => `${n} of ${of} kept`, removed: (n) => `${n} barred`,
    details: (p, total, items) => `probability ${p}, score ${total}, ${items} eligible items`, whole: "complete",
    stages: "Time", request: "The request, as curl", answer: "The answer, as JSON", copy: "Copy", copied: "Copied",
    added: (title) => `Added to the history: ${title}`, forgotten: "Forgotten: history, profile and all else.",
    level: "Level", rank: "rank", newHere: "only here", up: (n) => `${n} higher than in A`, down: (n) => `${n} lower than in A`, same: "as in A",
    cannotSearch: (why) => `This bundle cannot be searched in words: ${why}`,
    footer: "Everything on this page goes through the public API.", offline: "The service cannot be reached.",
    describe: "Describe", described: (text) => `The model reads this SID as: ${text}`, bundleOf: (items, levels) => `${items} items · ${levels} levels`, sid: "SID",
  },
  zh: {
    playground: "试验台", skip: "跳到结果", apiDocs: "接口", language: "English", languageName: "Switch to English",
    theme: "主题", themes: { auto: "主题：跟随系统", light: "主题：浅色", dark: "主题：深色" },
    keyNeeded: "此服务需要 API 密钥（仅在本标签页保存）", useKey: "使用",
    user: "用户", userId: "用户 ID", open: "打开", invent: "虚构一个用户", inventCold: "虚构冷启动用户",
    forget: "删除此用户", history: "历史", noHistory: "还没有行为：冷启动。可直接提问，或在下方添加商品。",
    addItem: "添加到历史", findItems: "查找商品", becomes: "点击计为", newest: "最新的在最后",
    click: "点击", cart: "加购", purchase: "购买", favorite: "收藏",
    question: "提问", recommend: "推荐", search: "搜索", ask: "提问", query: "用文字描述",
    compare: "并排比较", settings: "设置", settingsOf: (name) => `设置 ${name}`, k: "数量 (k)", beamWidth: "束宽",
    scene: "场景", none: "无", profile: "画像", asStored: "按存储", model: "版本",
    active: "当前版本", seen: "排除", seens: { "": "按部署设置", nothing: "不排除", purchased: "已购买的", history: "全部历史" },
    filters: "过滤条件", addFilter: "添加条件", attribute: "属性", test: "条件", value: "值", remove: "移除",
    excluded: "已排除", exclude: "排除", include: "恢复",
    items: "商品", nothing: "还没有结果。", noItems: "没有符合条件的商品。",
    score: "得分", sources: { model: "模型", profile: "仅画像", popular: "热门", popular_in_scene: "场景热门" },
    answeredBy: (version, ms) => `由 ${version} 回答，用时 ${ms} 毫秒`, because: (reason) => `原因：${reason}`,
    eligible: (n) => `${n} 个可选商品`, used: (n) => `提示中有 ${n} 个行为`,
    beam: "束搜索", beamHelp: "每一列是语义 ID 的一层，色条为该码在其父节点下的概率。指向某个码，或用方向键浏览。",
    noBeam: "模型没有回答，因此没有束可画。给此用户一些历史：点击某个商品，或", kept: "保留", dropped: "落选", ineligible: "因条件被排除",
    keptOf: (n, of) => `${of} 中保留 ${n}`, removed: (n) => `排除了 ${n} 个`,
    details: (p, total, items) => `概率 ${p}，得分 ${total}，${items} 个可选商品`, whole: "完整",
    stages: "耗时", request: "请求(curl)", answer: "回答(JSON)", copy: "复制", copied: "已复制",
    added: (title) => `已加入历史：${title}`, forgotten: "已删除：历史、画像及其他一切。",
    level: "层", rank: "名次", newHere: "仅此处有", up: (n) => `比 A 高 ${n} 位`, down: (n) => `比 A 低 ${n} 位`, same: "与 A 相同",
    cannotSearch: (why) => `此模型不能用文字搜索：${why}`,
    footer: "本页的一切都通过公开接口完成。", offline: "无法连接服务。",
    describe: "描述", described: (text) => `模型对此 ID 的理解：${text}`, bundleOf: (items, levels) => `${items} 个商品 · ${levels} 层`, sid: "语义 ID",
  },
};

const KEPT = "sidrec-language";
let language = localStorage.getItem(KEPT) ?? (navigator.language.startsWith("zh") ? "zh" : "en");

/** What the page says; functions take what belongs into the sentence. */
export function t(name, ...given) {
  const word = WORDS[language][name];
  return typeof word === "function" ? word(...given) : word;
}

/** A word of one of the small tables; what is unknown stands for itself. */
export const among = (table, name) => WORDS[language][table][name] ?? name;

/** The type of an event in words, where there are any. */
export const typed = (type) => (typeof WORDS[language][type] === "string" ? WORDS[language][type] : type);

/** Changes to the other language. */
export function turn() {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem(KEPT, language);
}

/** Writes the words of the page's own markup. */
export function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
}
